"""Two cameras and the depth of both views' cells from what matches what: a small bundle adjustment inside the network.

Gauss-Newton with the depths eliminated, unrolled, so that the matches, their weights and the priors learn from what comes of them: as in
BA-Net (Tang and Tan, ICLR 2019) and DROID-SLAM (Teed and Deng, NeurIPS 2021), with both focal lengths among the unknowns. Depths have
priors, so that a pair without parallax, or a cell without a match, keeps what one picture says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import is_for_loops
from dust3r_ros.network.bundle_in_loops import stepped
from dust3r_ros.network.two_view_reprojection import NEAREST, UNKNOWNS, Linearised, MatchedView, PairState, along, both_linearised, cross

LAST_DOUBT = 3.0  # standard deviations at which a match counts half, in the last step
SAME_CAMERA = 0.15  # of log focal lengths: beyond, two views are taken to have two cameras
FIRST_DAMPING, LAST_DAMPING = 1e-2, 1e-5  # relative to the diagonal
LEAST_CURVATURE = 1e-6
LEAST_VARIANCE, LARGEST_VARIANCE = 1e-8, 1e2
LARGEST_MOVE, LARGEST_TURN = 1.0, 0.5  # of one step: units of the priors' depth, radians
LARGEST_LOG = 0.7  # of one step, of focal lengths and depths
USE_TORCH = False  # though nobody learns, on a CPU


@dataclass(frozen=True, eq=False)
class TwoCameras:
    """Camera 2 to camera 1, log focal lengths in pixels, log depths of the cells of both views in their own cameras."""

    rotation: Tensor  # [B, 3, 3]
    translation: Tensor  # [B, 3]
    log_focal_1: Tensor  # [B]
    log_focal_2: Tensor  # [B]
    log_depth_1: Tensor  # [B, M1]
    log_depth_2: Tensor  # [B, M2]
    held_1: Tensor  # [B, M1] inverse variance of the log depths by the matches alone, were the cameras known
    held_2: Tensor  # [B, M2]
    missed_1: Tensor  # [B, M1, 2] pixels from where a cell was found to where it should be
    missed_2: Tensor  # [B, M2, 2]
    # One sigma of what the matches and priors leave open (of vectors, the root mean square of an axis); their gradient is not taken
    sigma_turn: Tensor  # [B] radians
    sigma_move: Tensor  # [B] in the depths' unit
    sigma_focal_1: Tensor  # [B] of the logarithm
    sigma_focal_2: Tensor  # [B]
    log_sigma_1: Tensor  # [B, M1] logarithm of the log depths' sigma, beside the view's mean log depth, with what is open of the cameras
    log_sigma_2: Tensor  # [B, M2]

    def swapped(self) -> TwoCameras:
        """The same with the views' names exchanged."""
        back = self.rotation.transpose(1, 2)
        with torch.autocast(back.device.type, enabled=False):  # a product of matrices: training would round it
            move = -(back @ self.translation[..., None])[..., 0]
        return TwoCameras(
            back, move, self.log_focal_2, self.log_focal_1,
            self.log_depth_2, self.log_depth_1, self.held_2, self.held_1, self.missed_2, self.missed_1,
            self.sigma_turn, self.sigma_move, self.sigma_focal_2, self.sigma_focal_1, self.log_sigma_2, self.log_sigma_1,
        )  # fmt: skip

    def state(self) -> PairState:
        """What a further adjustment starts from."""
        scale = torch.zeros_like(self.log_focal_1)  # its first step finds it at once
        return PairState(
            self.rotation, self.translation, self.log_focal_1, self.log_focal_2, scale, self.log_depth_1, self.log_depth_2
        )  # fmt: skip

    def with_depths(self, mean: float) -> TwoCameras:
        """At the scale at which the mean log depth of all cells is `mean`."""
        cells = torch.cat([self.log_depth_1, self.log_depth_2], dim=1)
        shift = mean - cells.mean(1)
        return replace(
            self,
            translation=self.translation * shift.exp()[:, None],
            sigma_move=self.sigma_move * shift.exp().detach(),
            log_depth_1=self.log_depth_1 + shift[:, None],
            log_depth_2=self.log_depth_2 + shift[:, None],
        )


@dataclass(frozen=True)
class Steps:
    """How often the cameras are adjusted."""

    count: int
    learned: int = 0  # the last ones, which the gradient goes through
    turning: int = 2  # the first ones, in which the cameras stay in one place: depths would follow what is a turn
    first_doubt: float = 16.0  # standard deviations at which a match counts half, in the first step; then less and less
    is_last: bool = True  # else nobody asks what is left open, and the sigmas are NaN

    def at(self, step: int) -> tuple[float, float]:
        """Damping and doubt."""
        done = step / max(1, self.count - 1)
        return _between(FIRST_DAMPING, LAST_DAMPING, done), _between(self.first_doubt, LAST_DOUBT, done)


def adjusted(
    one: MatchedView, two: MatchedView, same_camera: Tensor, scale_weight: float, steps: Steps, start: PairState | None = None
) -> TwoCameras:
    """From `start`, or from cameras in one place and depths as by the priors.

    same_camera: inverse variance of the difference of the log focal lengths; scale_weight: that of the second prior's log scale against
    the first's. float32; no waiting for the device.
    """
    state = _first_state(one, two) if start is None else start
    unlearned = steps.count - steps.learned * torch.is_grad_enabled()
    in_loops = unlearned if is_for_loops(one.found) and not USE_TORCH else 0
    if in_loops:
        bounds = (NEAREST, LEAST_CURVATURE, LARGEST_MOVE, LARGEST_TURN, LARGEST_LOG)
        asked = [steps.at(step) for step in range(in_loops)]
        state, missed = stepped(state, one, two, (same_camera, SAME_CAMERA), scale_weight, asked, steps.turning, bounds)
        if in_loops == steps.count and not steps.is_last:
            return _cameras(state, torch.full_like(state.log_depth_1, torch.nan), torch.full_like(state.log_depth_2, torch.nan), *missed)
    for step in range(in_loops, steps.count):
        with torch.set_grad_enabled(torch.is_grad_enabled() and step >= unlearned):
            state = _step(state, one, two, same_camera, scale_weight, *steps.at(step), step < steps.turning)
    first, second = both_linearised(state, one, two, LAST_DOUBT)
    found = first.held(), second.held(), first.residual, second.residual
    return _cameras(state, *found, _left_open(state, one, two, same_camera, scale_weight, first, second) if steps.is_last else None)


def _cameras(
    state: PairState, held_1: Tensor, held_2: Tensor, missed_1: Tensor, missed_2: Tensor, left_open: tuple[Tensor, ...] | None = None
) -> TwoCameras:
    return TwoCameras(
        state.rotation, state.translation, state.log_focal_1, state.log_focal_2, state.log_depth_1, state.log_depth_2,
        held_1, held_2, missed_1, missed_2, *(left_open or _unasked(state)),
    )  # fmt: skip


def _first_state(one: MatchedView, two: MatchedView) -> PairState:
    batch, device = len(one.places), one.places.device
    nowhere = torch.zeros(batch, 3, device=device)
    there = torch.eye(3, device=device).expand(batch, 3, 3)
    return PairState(there, nowhere, one.log_focal, two.log_focal, nowhere[:, 0], one.log_depth, two.log_depth)


def _step(
    state: PairState, one: MatchedView, two: MatchedView, same: Tensor, scale_weight: float, damping: float, doubt: float, turns_only: bool
) -> PairState:
    first, second = both_linearised(state, one, two, doubt)
    depth_2 = two.log_depth + state.log_scale[:, None]
    h_1, g_1, by_1 = _eliminated(first, one.depth_weight, state.log_depth_1 - one.log_depth)
    h_2, g_2, by_2 = _eliminated(second, two.depth_weight, state.log_depth_2 - depth_2)
    h_p, g_p = _priors(state, one, two, same, scale_weight)
    curvature, gradient = h_1 + h_2 + h_p, g_1 + g_2 + g_p
    if turns_only:
        curvature, gradient = curvature[:, 3:8, 3:8], gradient[:, 3:8]
    moved = -_solved(curvature, gradient, damping)
    if turns_only:
        moved = F.pad(moved, (3, 1))
    turned = moved[:, 3:6] / (moved[:, 3:6].norm(dim=-1, keepdim=True) / LARGEST_TURN).clamp_min(1.0)
    moved_by = moved[:, :3] / (moved[:, :3].norm(dim=-1, keepdim=True) / LARGEST_MOVE).clamp_min(1.0)
    logs = moved[:, 6:].clamp(-LARGEST_LOG, LARGEST_LOG)
    rotation = _rotation(turned)
    moved = torch.cat([moved_by, turned, logs], dim=-1)
    log_depth_1 = state.log_depth_1 + by_1.change(moved)
    log_depth_2 = state.log_depth_2 + logs[:, 2:] + by_2.change(moved)
    return PairState(
        rotation @ state.rotation, (rotation @ state.translation[..., None])[..., 0] + moved[:, :3],
        state.log_focal_1 + logs[:, 0], state.log_focal_2 + logs[:, 1], state.log_scale + logs[:, 2], log_depth_1, log_depth_2,
    )  # fmt: skip


@torch.no_grad()
def _left_open(
    state: PairState, one: MatchedView, two: MatchedView, same: Tensor, scale_weight: float, first: Linearised, second: Linearised
) -> tuple[Tensor, ...]:
    """The last six of TwoCameras, by the curvature where the adjustment has ended."""
    h_1, _, by_1 = _eliminated(first, one.depth_weight, torch.zeros_like(state.log_depth_1))
    h_2, _, by_2 = _eliminated(second, two.depth_weight, torch.zeros_like(state.log_depth_2))
    curvature = h_1 + h_2 + _priors(state, one, two, same, scale_weight)[0]
    covariance = _solved(curvature, torch.eye(UNKNOWNS, device=curvature.device).expand_as(curvature), 0.0)
    variance = covariance.diagonal(dim1=1, dim2=2).clamp_min(LEAST_VARIANCE)
    move, turn, focal_1, focal_2 = variance[:, :3].mean(1), variance[:, 3:6].mean(1), variance[:, 6], variance[:, 7]
    depths = [0.5 * by.variance(covariance).clamp(LEAST_VARIANCE, LARGEST_VARIANCE).log() for by in (by_1, by_2)]
    return turn.sqrt(), move.sqrt(), focal_1.sqrt(), focal_2.sqrt(), depths[0], depths[1]


def _unasked(state: PairState) -> tuple[Tensor, ...]:
    """NaN for the same."""
    of_pair = torch.full_like(state.log_scale, torch.nan)
    return (*(4 * [of_pair]), torch.full_like(state.log_depth_1, torch.nan), torch.full_like(state.log_depth_2, torch.nan))


@dataclass(frozen=True, eq=False)
class _Depths:
    """What gives the depths' change back when the pair's unknowns have moved."""

    mixed: Tensor  # [B, M, 9]
    curvature: Tensor  # [B, M]
    gradient: Tensor  # [B, M]

    def change(self, moved: Tensor) -> Tensor:
        change = -(self.gradient + (self.mixed @ moved[..., None])[..., 0]) / self.curvature
        return change.clamp(-LARGEST_LOG, LARGEST_LOG)

    def variance(self, covariance: Tensor) -> Tensor:
        """[B, M] of the log depths beside their mean, by that of the pair's unknowns [B, 9, 9]."""
        follows = self.mixed / self.curvature[..., None]
        apart = follows - follows.mean(1, keepdim=True)
        return 1 / self.curvature + ((apart @ covariance) * apart).sum(-1)


def _eliminated(view: Linearised, prior: Tensor, off: Tensor) -> tuple[Tensor, Tensor, _Depths]:
    """Curvature [B, 9, 9] and gradient [B, 9] of the pair's unknowns once every depth is at its best, beside its prior.

    A sum of squares of what is left of each row, not the difference that Schur's complement is written as: it stays above 0 in float32.
    """
    prior = prior + LEAST_CURVATURE
    curvature = view.held() + prior
    gradient = view.weight * along(view.by_depth, view.residual) + prior * off
    across, down = view.jacobian.unbind(-2)
    mixed = view.weight[..., None] * (across * view.by_depth[..., :1] + down * view.by_depth[..., 1:])
    follows = mixed / curvature[..., None]  # how a depth, with its sign turned, follows the unknowns
    left = view.jacobian - view.by_depth[..., None] * follows[..., None, :]
    weighted = left * view.weight[..., None, None]
    held_back = follows * prior[..., None]
    whole = weighted.flatten(1, 2).transpose(1, 2) @ left.flatten(1, 2) + held_back.transpose(1, 2) @ follows
    slope = weighted.flatten(1, 2).transpose(1, 2) @ view.residual.flatten(1, 2)[..., None] - held_back.transpose(1, 2) @ off[..., None]
    return whole, slope[..., 0], _Depths(mixed, curvature, gradient)


def _priors(state: PairState, one: MatchedView, two: MatchedView, same: Tensor, scale_weight: float) -> tuple[Tensor, Tensor]:
    """Of the focal lengths, of their being one camera's, and of the scale: [B, 9, 9] and [B, 9]."""
    apart = state.log_focal_1 - state.log_focal_2
    alike = same / (1 + (apart.detach() / SAME_CAMERA) ** 2) ** 2  # Geman and McClure's: two cameras may be two
    off_1, off_2 = state.log_focal_1 - one.log_focal, state.log_focal_2 - two.log_focal
    zero = torch.zeros_like(apart)
    diagonal = torch.stack([*(6 * [zero]), one.focal_weight + alike, two.focal_weight + alike, zero + scale_weight], dim=-1)
    between = torch.zeros(UNKNOWNS, UNKNOWNS, device=apart.device)
    between[6, 7] = between[7, 6] = 1.0
    pulls = (one.focal_weight * off_1 + alike * apart, two.focal_weight * off_2 - alike * apart, scale_weight * state.log_scale)
    return torch.diag_embed(diagonal) - alike[:, None, None] * between, torch.stack([*(6 * [zero]), *pulls], dim=-1)


def _between(first: float, last: float, done: float) -> float:
    return first * float((last / first) ** done)


def _solved(curvature: Tensor, gradient: Tensor, damping: float) -> Tensor:
    """x of (A + damping diag A) x = b, [B, N] or, of several b, [B, N, K], on A brought to a diagonal of ones.

    On a GPU by hand: the libraries' solvers wait for it, or cannot be recorded there.
    """
    size = curvature.diagonal(dim1=1, dim2=2).clamp_min(LEAST_CURVATURE).rsqrt()
    scaled = curvature * size[:, :, None] * size[:, None, :]
    scaled = scaled + (damping + LEAST_CURVATURE) * torch.eye(curvature.shape[1], device=curvature.device)
    right = size[:, :, None] * (gradient if gradient.ndim == 3 else gradient[..., None])
    solution = torch.linalg.solve_ex(scaled, right).result if scaled.device.type == "cpu" else _eliminated_by_hand(scaled, right)
    solution = solution * size[:, :, None]
    return solution if gradient.ndim == 3 else solution[..., 0]


def _eliminated_by_hand(left: Tensor, right: Tensor) -> Tensor:
    """The solution of left x = right, [B, N, N] and [B, N, K], by Gauss and Jordan without pivots."""
    rows = torch.cat([left, right], dim=2)
    for k in range(left.shape[1]):
        pivot = rows[:, k : k + 1] / rows[:, k : k + 1, k : k + 1].clamp_min(LEAST_CURVATURE)
        others = rows - rows[:, :, k : k + 1] * pivot
        rows = torch.cat([others[:, :k], pivot, others[:, k + 1 :]], dim=1)
    return rows[..., left.shape[1] :]


def _rotation(turn: Tensor) -> Tensor:
    """Rodrigues' formula: rotation vectors [B, 3] to [B, 3, 3]."""
    square = turn.square().sum(-1)[:, None, None]
    angle = square.clamp_min(1e-12).sqrt()
    crossed = cross(turn)
    half = torch.sinc(angle / (2 * torch.pi))
    identity = torch.eye(3, device=turn.device)
    return identity + torch.sinc(angle / torch.pi) * crossed + 0.5 * half * half * (crossed @ crossed)
