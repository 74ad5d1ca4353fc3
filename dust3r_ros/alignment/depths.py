"""Depth of each pixel given everything else: a robust fit along its ray.

Along a ray t + D d, pair k's point y_k has the distance sqrt(|d|^2 (D - a_k)^2 + b_k): a_k is where along the ray it is nearest, b_k the
square of how far off the ray it lies. The sum of weighted distances is convex in D.
"""

from __future__ import annotations

import torch
from torch import Tensor


def along_rays(points: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """points [..., K, 3, S], origin [..., 3], direction [..., 3, S] -> a [..., K, S], b [..., K, S], |d|^2 [..., S]."""
    offset = points - origin[..., None, :, None]
    square = (direction * direction).sum(-2)
    a = (offset * direction[..., None, :, :]).sum(-2) / square[..., None, :]
    b = ((offset * offset).sum(-2) - a * a * square[..., None, :]).clamp(min=0.0)
    return a, b, square


def best_candidate(a: Tensor, b: Tensor, weight: Tensor, square: Tensor) -> Tensor:
    """[..., S]: of the depths that single pairs say (a, [..., K, S]) the one with the least sum of distances. Quadratic in K."""
    costs = [
        (weight * (square[..., None, :] * (a - a[..., k : k + 1, :]) ** 2 + b).sqrt()).sum(-2).where(weight[..., k, :] > 0, torch.inf)
        for k in range(a.shape[-2])
    ]
    best = torch.stack(costs, dim=-2).argmin(-2, keepdim=True)
    return a.gather(-2, best).squeeze(-2)


def weighted_median(a: Tensor, weight: Tensor) -> Tensor:
    """[..., S]: of the depths that single pairs say the one with half of the weight on either side: the best one if all lie on the ray."""
    ordered, order = a.sort(dim=-2)
    total = weight.gather(-2, order).cumsum(-2)
    middle = (total >= 0.5 * total[..., -1:, :]).to(torch.int8).argmax(-2, keepdim=True)
    return ordered.gather(-2, middle).squeeze(-2)


def refined(depth: Tensor, a: Tensor, b: Tensor, weight: Tensor, square: Tensor, eps: float, rounds: int) -> Tensor:
    """Reweighted steps from `depth` [..., S] towards the least sum of sqrt(distance^2 + eps^2); 0 where no weight is."""
    total = weight.sum(-2)
    for _ in range(rounds):
        say = weight / (square[..., None, :] * (depth[..., None, :] - a) ** 2 + b + eps * eps).sqrt()
        depth = (say * a).sum(-2) / say.sum(-2).clamp(min=1e-300)
    return torch.where(total > 0, depth, torch.zeros_like(depth))
