"""Second order in pair similarities, poses and focal lengths, the depths eliminated pixel by pixel.

Residual r = R_v ray D + t_v - y, y = s_e R_e X + T_e, with increments on the left: y changes by w x y + t + sigma y for a pair's
(w, t, sigma), and a pose moves its points likewise; its derivative is taken at y too, which makes it minus the pair's and keeps the
freedom of moving the whole scene exact. The weight of a residual is c / rho (I - alpha r r' / rho^2), rho = sqrt(|r|^2 + eps^2): alpha 0
is reweighted least squares, alpha 1 Newton.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dust3r_ros.alignment.problem import Problem, State

EDGE, POSE = 7, 6  # unknowns of a pair (rotation, translation, log scale) and of a pose


@dataclass(eq=False)
class NormalEquations:
    """Of every image alone, in the order: its K pairs' 7 unknowns, its pose's 6, the log of its focal length."""

    matrix: Tensor  # [N, M, M] float64, M = 7 K + 7
    gradient: Tensor  # [N, M]


def residuals(problem: Problem, state: State) -> tuple[Tensor, Tensor]:
    """r [N, K, 3, S] and y [N, K, 3, S]."""
    target = state.targets(problem)
    world = state.directions(problem) * state.depth[:, None] + state.position[..., None]
    return world[:, None] - target, target


def smoothed(problem: Problem, state: State, eps: float) -> float:
    """The objective over the chosen pixels, its norm smoothed by eps; divided by the geometric mean of the pairs' scales, so that it means
    the same for scenes of any size."""
    r, _ = residuals(problem, state)
    scale = state.edge_scale.log().mean().exp()
    return float((problem.weight * ((r * r).sum(-2) + eps * eps).sqrt()).sum() / scale)


def normal_equations(problem: Problem, state: State, eps: float, alpha: float) -> NormalEquations:
    r, y = residuals(problem, state)
    n, k, _, s = r.shape
    rho = ((r * r).sum(-2) + eps * eps).sqrt()
    weight = (problem.weight / rho)[:, :, None]  # [N, K, 1, S]
    direction = state.directions(problem)[:, None]
    # d world / d log focal = -(x, y, 0) D turned into the world
    bent = state.rotation[:, :, :2] @ (-state.rays(problem)[:, :2] * state.depth[:, None])
    bent = bent[:, None]

    gradient_each = _against(weight * r, y, bent, direction)  # [N, K, 9, S], float64: sums of what nearly cancels
    along = _against(r / rho[:, :, None], y, bent, direction)  # r' J / rho
    by_depth = weight * (_against(direction, y, bent, direction) - alpha * along * along[:, :, 8:])  # J' W d of every pixel

    y32, bent32, direction32, weight32 = y.float(), bent.float(), direction.float(), weight.float()
    products = torch.zeros(n, k, 8, 8, dtype=torch.float32)
    for axis in torch.eye(3, dtype=torch.float32):
        row = _against(axis.view(3, 1).expand(3, s), y32, bent32, direction32)[:, :, :8]
        products += (row * weight32) @ row.transpose(-1, -2)
    along32 = along[:, :, :8].float()
    products = (products - alpha * (along32 * weight32) @ along32.transpose(-1, -2)).double()  # [N, K, 8, 8], summed over the pixels

    # Eliminate each pixel's depth: all pairs of an image share it, and so does its focal length.
    own = by_depth[:, :, 8].sum(1)
    inverse = torch.where(own > 0, 1.0 / own.clamp(min=1e-300), 0.0)[:, None]  # [N, 1, S]
    shared = torch.cat([by_depth[:, :, :7].reshape(n, 7 * k, s), by_depth[:, :, 7].sum(1)[:, None]], dim=1)
    slope = gradient_each[:, :, 8].sum(1)[:, None]
    matrix = torch.zeros(n, 7 * k + 1, 7 * k + 1, dtype=torch.float64)
    every = torch.arange(k)
    blocks = matrix[:, : 7 * k, : 7 * k].unflatten(1, (k, 7)).unflatten(3, (k, 7))
    blocks[:, every, :, every] = products[..., :7, :7].transpose(0, 1)
    matrix[:, : 7 * k, 7 * k] = matrix[:, 7 * k, : 7 * k] = products[..., :7, 7].flatten(1)
    matrix[:, 7 * k, 7 * k] = products[..., 7, 7].sum(1)
    matrix -= (shared * inverse) @ shared.transpose(1, 2)
    summed = gradient_each.sum(-1)
    gradient = torch.cat([summed[..., :7].flatten(1), summed[..., 7].sum(1)[:, None]], dim=1)
    gradient = gradient - (shared * (inverse * slope)).sum(-1)
    return _with_pose(matrix, gradient, k)


def _against(vector: Tensor, y: Tensor, bent: Tensor, direction: Tensor) -> Tensor:
    """J' vector of every pixel, [N, K, 9, S]: the pair's rotation, translation and log scale, the log focal length, the depth.

    vector, y [..., 3, S]; bent, direction [N, 1, 3, S]: how the point moves with the log focal length and with its depth.
    """
    out = y.new_empty(*y.shape[:2], 9, y.shape[3])
    (a, b, c), (u, v, w) = vector.unbind(-2), y.unbind(-2)
    for at, value in enumerate((b * w - c * v, c * u - a * w, a * v - b * u, -a, -b, -c, -(a * u + b * v + c * w))):
        out[:, :, at] = value
    out[:, :, 7] = (vector * bent).sum(-2)
    out[:, :, 8] = (vector * direction).sum(-2)
    return out


def _with_pose(matrix: Tensor, gradient: Tensor, k: int) -> NormalEquations:
    """The pose's unknowns act as minus those of all its pairs at once."""
    spread = torch.zeros(7 * k + POSE + 1, 7 * k + 1, dtype=torch.float64)
    spread[: 7 * k, : 7 * k] = torch.eye(7 * k, dtype=torch.float64)
    for pair in range(k):
        spread[7 * k : 7 * k + POSE, 7 * pair : 7 * pair + POSE] = -torch.eye(POSE, dtype=torch.float64)
    spread[-1, -1] = 1.0
    return NormalEquations(spread @ matrix @ spread.T, gradient @ spread.T)
