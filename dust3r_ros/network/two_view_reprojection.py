"""Where the cells of one view lie in the other, by poses, focal lengths and depths, and how that changes with each of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

UNKNOWNS = 9  # of a pair: how the second camera moves (translation, rotation), both log focal lengths, the second prior's log scale
NEAREST = 0.05  # in front of a camera, in units of the priors' depth: what comes nearer is not looked at


@dataclass(frozen=True, eq=False)
class MatchedView:
    """The cells of a view: where they lie, where the other view sees them, and what was thought of them before."""

    places: Tensor  # [B, M, 2] (across, down) pixels from the principal point
    found: Tensor  # [B, M, 2] in the other view, from its principal point
    weight: Tensor  # [B, M] inverse variance of `found`, per pixel squared; 0: not seen there
    log_depth: Tensor  # [B, M] prior
    depth_weight: Tensor  # [B, M] inverse variance of it
    log_focal: Tensor  # [B] prior, of the focal length in pixels
    focal_weight: Tensor  # [B] inverse variance of it
    principal: Tensor  # [B, 2] principal point, pixels from the picture's middle
    is_measured: Tensor  # [B] bool, whether lens and principal point were measured: else the latter is taken to be the middle


@dataclass(frozen=True, eq=False)
class PairState:
    """What is thought of a batch of pairs while it is adjusted."""

    rotation: Tensor  # [B, 3, 3] camera 2 to camera 1
    translation: Tensor  # [B, 3]
    log_focal_1: Tensor  # [B]
    log_focal_2: Tensor
    log_scale: Tensor  # [B] of the second view's prior
    log_depth_1: Tensor  # [B, M1]
    log_depth_2: Tensor


@dataclass(frozen=True, eq=False)
class Linearised:
    """Of one view's cells: residuals [B, M, 2], how they change with the pair's unknowns [B, M, 2, 9] and with their depth [B, M, 2]."""

    residual: Tensor
    jacobian: Tensor
    by_depth: Tensor
    weight: Tensor  # [B, M], with what robustness leaves of it

    def held(self) -> Tensor:
        """[B, M] inverse variance of the log depths by the matches alone, were the cameras known."""
        return self.weight * self.by_depth.square().sum(-1)


def linearised(state: PairState, view: MatchedView, is_first: bool, doubt: float) -> Linearised:
    """Of view 1's cells or view 2's. Matches that miss by `doubt` standard deviations count half, farther ones less (Cauchy's weights)."""
    own, other = (state.log_focal_1, state.log_focal_2) if is_first else (state.log_focal_2, state.log_focal_1)
    log_depth = state.log_depth_1 if is_first else state.log_depth_2
    own_focal, focal = own.exp()[:, None, None], other.exp()[:, None]
    back = state.rotation.transpose(1, 2)
    turn = back if is_first else state.rotation  # this view's camera to the other's
    shift = -(back @ state.translation[..., None])[..., 0] if is_first else state.translation
    slope = view.places / own_focal
    ray = torch.cat([slope, torch.ones_like(slope[..., :1])], dim=-1)
    turned = (log_depth.exp()[..., None] * ray) @ turn.transpose(1, 2)  # how the point moves with its log depth
    x, y, z = (turned + shift[:, None]).unbind(-1)
    is_ahead = z > NEAREST
    inverse = 1 / z.clamp_min(NEAREST)
    x, y = x * inverse, y * inverse
    seen = torch.stack([x, y], dim=-1) * focal[..., None]

    def by(moved: Tensor) -> Tensor:
        """How the place changes when the point, in the other camera, moves as [B, M, 3]."""
        gain = (focal * inverse)[..., None]
        return (moved[..., :2] - torch.stack([x, y], dim=-1) * moved[..., 2:]) * gain

    by_motion = _by_motion(x, y, inverse, focal)
    if is_first:  # the cameras move as the second one's points do in camera 1: for camera 2 the other way
        by_motion = -(by_motion @ _adjoint(turn, shift)[:, None])
    by_depth = by(turned)
    flat = torch.cat([-slope, torch.zeros_like(slope[..., :1])], dim=-1)
    by_own = by((log_depth.exp()[..., None] * flat) @ turn.transpose(1, 2))
    focals = [by_own, seen] if is_first else [seen, by_own]
    scale = torch.zeros_like(by_depth) if is_first else by_depth
    jacobian = torch.cat([by_motion, *(column[..., None] for column in (*focals, scale))], dim=-1)
    residual = seen - view.found
    with torch.no_grad():
        far = residual.norm(dim=-1) * view.weight.sqrt()
        left = is_ahead / (1 + (far / doubt) ** 2)
    return Linearised(residual, jacobian, by_depth, view.weight * left)


def _by_motion(x: Tensor, y: Tensor, inverse: Tensor, focal: Tensor) -> Tensor:
    """Of places (x, y) f of points at depth 1 / inverse, [B, M, 2, 6], when all points move by a twist in front of the camera."""
    zero = torch.zeros_like(x)
    across = torch.stack([inverse, zero, -x * inverse, -x * y, 1 + x * x, -y], dim=-1)
    down = torch.stack([zero, inverse, -y * inverse, -(1 + y * y), x * y, x], dim=-1)
    return torch.stack([across, down], dim=-2) * focal[..., None, None]


def _adjoint(rotation: Tensor, translation: Tensor) -> Tensor:
    """[B, 6, 6]: a twist (translation first) in one frame as one in the frame that the pose leads to."""
    upper = torch.cat([rotation, cross(translation) @ rotation], dim=2)
    lower = torch.cat([torch.zeros_like(rotation), rotation], dim=2)
    return torch.cat([upper, lower], dim=1)


def cross(v: Tensor) -> Tensor:
    """[B, 3] to the matrices [B, 3, 3] that multiply by it."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
