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
        return self.weight * along(self.by_depth, self.by_depth)


def linearised(state: PairState, view: MatchedView, is_first: bool, doubt: float) -> Linearised:
    """Of view 1's cells or view 2's. Matches that miss by `doubt` standard deviations count half, farther ones less (Cauchy's weights)."""
    side = _side(state, view, is_first)
    return _of_pair(_projected(side, doubt), side, is_first)


def both_linearised(state: PairState, one: MatchedView, two: MatchedView, doubt: float) -> tuple[Linearised, Linearised]:
    """Of view 1's cells and view 2's: at once where they are as many."""
    sides = _side(state, one, True), _side(state, two, False)
    if one.places.shape != two.places.shape:
        parts = [_projected(side, doubt) for side in sides]
    else:
        joined = _Side(*(torch.cat(values) for values in zip(*(vars(side).values() for side in sides), strict=True)))
        parts = [
            _Projected(*values) for values in zip(*(value.chunk(2) for value in vars(_projected(joined, doubt)).values()), strict=True)
        ]
    return _of_pair(parts[0], sides[0], True), _of_pair(parts[1], sides[1], False)


@dataclass(frozen=True, eq=False)
class _Side:
    """What of a pair decides where a view's cells lie in the other one."""

    places: Tensor
    found: Tensor
    weight: Tensor
    log_depth: Tensor
    log_focal: Tensor
    other_log_focal: Tensor
    turn: Tensor  # [B, 3, 3] this view's camera to the other's
    shift: Tensor  # [B, 3]


@dataclass(frozen=True, eq=False)
class _Projected:
    """Residuals [B, M, 2] and how they change; `by_motion` [B, M, 2, 6]: as the points move in front of the other camera."""

    residual: Tensor
    by_motion: Tensor
    by_depth: Tensor
    by_own_focal: Tensor
    by_other_focal: Tensor
    weight: Tensor  # [B, M], with what robustness leaves of it


def _side(state: PairState, view: MatchedView, is_first: bool) -> _Side:
    matches = (view.places, view.found, view.weight)
    if not is_first:
        return _Side(*matches, state.log_depth_2, state.log_focal_2, state.log_focal_1, state.rotation, state.translation)
    back = state.rotation.transpose(1, 2)
    return _Side(*matches, state.log_depth_1, state.log_focal_1, state.log_focal_2, back, -(back @ state.translation[..., None])[..., 0])


def _projected(side: _Side, doubt: float) -> _Projected:
    focal, across = side.other_log_focal.exp()[:, None], side.turn.transpose(1, 2)
    slope = side.places / side.log_focal.exp()[:, None, None]
    depth = side.log_depth.exp()[..., None]
    turned = (depth * torch.cat([slope, torch.ones_like(slope[..., :1])], dim=-1)) @ across  # how the point moves with its log depth
    x, y, z = (turned + side.shift[:, None]).unbind(-1)
    is_ahead = z > NEAREST
    inverse = 1 / z.clamp_min(NEAREST)
    x, y = x * inverse, y * inverse
    seen = torch.stack([x, y], dim=-1)
    gain = (focal * inverse)[..., None]

    def by(moved: Tensor) -> Tensor:
        """How the place changes when the point, in the other camera, moves as [B, M, 3]."""
        return (moved[..., :2] - seen * moved[..., 2:]) * gain

    by_own = by((-depth * slope) @ across[:, :2])
    by_other = seen * focal[..., None]
    residual = by_other - side.found
    with torch.no_grad():
        far = residual.norm(dim=-1) * side.weight.sqrt()
        left = is_ahead / (1 + (far / doubt) ** 2)
    return _Projected(residual, _by_motion(x, y, inverse, focal), by(turned), by_own, by_other, side.weight * left)


def _of_pair(at: _Projected, side: _Side, is_first: bool) -> Linearised:
    """By the pair's unknowns. The cameras move as the second one's points do in camera 1: for camera 2 it is the other way."""
    if is_first:
        by_motion = -(at.by_motion @ _adjoint(side.turn, side.shift)[:, None])
        logs = (at.by_own_focal, at.by_other_focal, torch.zeros_like(at.by_depth))
    else:
        by_motion, logs = at.by_motion, (at.by_other_focal, at.by_own_focal, at.by_depth)
    jacobian = torch.cat([by_motion, torch.stack(logs, dim=-1)], dim=-1)
    return Linearised(at.residual, jacobian, at.by_depth, at.weight)


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


def along(a: Tensor, b: Tensor) -> Tensor:
    """Products [...] of vectors [..., 2]: sums over an axis as short as that take CPUs ten times as long."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]


def cross(v: Tensor) -> Tensor:
    """[B, 3] to the matrices [B, 3, 3] that multiply by it."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
