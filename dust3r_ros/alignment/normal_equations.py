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
    """r [N, K, S, 3] and y [N, K, S, 3]."""
    target = state.targets(problem)
    world = state.directions(problem) * state.depth[..., None] + state.position[:, None]
    return world[:, None] - target, target


def smoothed(problem: Problem, state: State, eps: float) -> float:
    """The objective over the chosen pixels, its norm smoothed by eps; divided by the geometric mean of the pairs' scales, so that it means
    the same for scenes of any size."""
    r, _ = residuals(problem, state)
    scale = state.edge_scale.log().mean().exp()
    return float((problem.weight * ((r * r).sum(-1) + eps * eps).sqrt()).sum() / scale)


def normal_equations(problem: Problem, state: State, eps: float, alpha: float) -> NormalEquations:
    r, y = residuals(problem, state)
    n, k, s, _ = r.shape
    rho = ((r * r).sum(-1) + eps * eps).sqrt()
    weight = problem.weight / rho
    direction = state.directions(problem)
    # d world / d log focal = -(x, y, 0) D turned into the world
    bent = torch.cat([-state.rays(problem)[..., :2], torch.zeros_like(direction[..., :1])], dim=-1)
    bent = (bent @ state.rotation.transpose(1, 2)) * state.depth[..., None]

    force = weight[..., None] * r
    gradient_each = _against(force, y, bent, direction)  # [N, K, S, 9], float64: sums of what nearly cancels
    along = _against(r / rho[..., None], y, bent, direction)  # r' J / rho
    by_depth = _against(direction[:, None].expand_as(y), y, bent, direction) - alpha * along * along[..., 8:]
    by_depth = by_depth * weight[..., None]  # J' W d of every pixel

    axes = torch.eye(3, dtype=torch.float32)
    y32, bent32, direction32, weight32 = y.float(), bent.float(), direction.float(), weight.float()[..., None]
    products = torch.zeros(n, k, 8, 8, dtype=torch.float32)
    for axis in axes:
        row = _against(axis.expand_as(y32), y32, bent32, direction32)[..., :8]
        products += (row * weight32).transpose(-1, -2) @ row
    along32 = along[..., :8].float()
    products -= alpha * (along32 * weight32).transpose(-1, -2) @ along32  # [N, K, 8, 8], summed over the pixels

    # Eliminate each pixel's depth: all pairs of an image share it, and so does its focal length.
    own = by_depth[..., 8].sum(1)
    inverse = torch.where(own > 0, 1.0 / own.clamp(min=1e-300), 0.0)
    shared = torch.cat([by_depth[..., :7].permute(0, 2, 1, 3).reshape(n, s, 7 * k), by_depth[..., 7].sum(1)[..., None]], dim=-1)
    slope = gradient_each[..., 8].sum(1)
    matrix = torch.zeros(n, 7 * k + 1, 7 * k + 1, dtype=torch.float64)
    blocks = matrix[:, : 7 * k, : 7 * k].view(n, k, 7, k, 7)
    every = torch.arange(k)
    products = products.double()
    blocks[:, every, :, every] = products[..., :7, :7].transpose(0, 1)
    matrix[:, : 7 * k, 7 * k] = matrix[:, 7 * k, : 7 * k] = products[..., :7, 7].flatten(1)
    matrix[:, 7 * k, 7 * k] = products[..., 7, 7].sum(1)
    matrix -= (shared * inverse[..., None]).transpose(1, 2) @ shared
    gradient = torch.cat([gradient_each[..., :7].sum(2).flatten(1), gradient_each[..., 7].sum((1, 2))[:, None]], dim=1)
    gradient = gradient - (shared * (inverse * slope)[..., None]).sum(1)
    return _with_pose(matrix, gradient, k)


def _against(vector: Tensor, y: Tensor, bent: Tensor, direction: Tensor) -> Tensor:
    """J' vector of every pixel, [N, K, S, 9]: the pair's rotation, translation and log scale, the log focal length, the depth.

    vector, y [N, K, S, 3]; bent, direction [N, S, 3]: how the point moves with the log focal length and with its depth.
    """
    ends = [(other * vector).sum(-1, keepdim=True) for other in (-y, bent[:, None], direction[:, None])]
    return torch.cat([torch.linalg.cross(vector, y), -vector, *ends], dim=-1)


def _with_pose(matrix: Tensor, gradient: Tensor, k: int) -> NormalEquations:
    """The pose's unknowns act as minus those of all its pairs at once."""
    spread = torch.zeros(7 * k + POSE + 1, 7 * k + 1, dtype=torch.float64)
    spread[: 7 * k, : 7 * k] = torch.eye(7 * k, dtype=torch.float64)
    for pair in range(k):
        spread[7 * k : 7 * k + POSE, 7 * pair : 7 * pair + POSE] = -torch.eye(POSE, dtype=torch.float64)
    spread[-1, -1] = 1.0
    return NormalEquations(spread @ matrix @ spread.T, gradient @ spread.T)
