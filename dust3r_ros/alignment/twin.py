"""What `compiled` computes, in torch: its specification, tested against it, and the way on devices that it does not know.

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


@dataclass(frozen=True, eq=False)
class Views:
    """A problem and a state as tensors: of all sides [M, ...], of images [N, ...]. float64."""

    image: Tensor  # [M] which image each side is of
    target: Tensor  # [M, 3, S] y
    weight: Tensor  # [M, S]
    direction: Tensor  # [N, 3, S] world, one unit of depth long along z
    bent: Tensor  # [N, 3, S] how directions change with the log focal length
    position: Tensor  # [N, 3]
    depth: Tensor  # [N, S]

    @classmethod
    def of(cls, problem: Problem, state: State, device: torch.device | str = "cpu") -> Views:
        def tensor(values: object) -> Tensor:
            return torch.as_tensor(values, device=device)

        pair = tensor(problem.pair)
        linear, offset = tensor(state.linear)[pair], tensor(state.pair_translation)[pair]
        xy = tensor(problem.pixels) / tensor(state.focal)[:, None, None]
        rotation = tensor(state.rotation)
        return cls(
            image=tensor(problem.image),
            target=linear @ tensor(problem.points) + offset[..., None],
            weight=tensor(problem.weight),
            direction=rotation @ torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1),
            bent=-rotation[:, :, :2] @ xy,
            position=tensor(state.position),
            depth=tensor(state.depth),
        )

    def summed(self, values: Tensor) -> Tensor:
        """[M, ...] to [N, ...]: over the sides of each image."""
        return torch.zeros(len(self.depth), *values.shape[1:], dtype=values.dtype, device=values.device).index_add_(0, self.image, values)


def fit_depths(views: Views, eps: float, rounds: int, anew: bool) -> tuple[Tensor, Tensor]:
    """depth [N, S] and each image's smoothed cost [N]."""
    offset = views.target - views.position[views.image][..., None]
    direction = views.direction[views.image]
    square = (views.direction * views.direction).sum(1)
    a = (offset * direction).sum(1) / square[views.image]
    b = ((offset - a[:, None] * direction) ** 2).sum(1) + eps * eps
    depth = views.depth
    if anew:
        rows = []
        for n in range(len(depth)):  # of what single pairs say, that with the least cost
            own = views.image == n
            spread = square[n] * (a[own][:, None] - a[own][None]) ** 2 + b[own][None]
            cost = (views.weight[own][None] * spread.sqrt()).sum(1).where(views.weight[own] > 0, torch.inf)
            best = a[own].gather(0, cost.argmin(0, keepdim=True))[0]
            rows.append(torch.where(torch.isfinite(cost.min(0).values), best, depth[n]))
        depth = torch.stack(rows)

    def distance() -> Tensor:
        return (square[views.image] * (depth[views.image] - a) ** 2 + b).sqrt()

    for _ in range(rounds):
        say = views.weight / distance()
        depth = views.summed(say * a) / views.summed(say).clamp(min=1e-300)
    return depth, views.summed((views.weight * distance()).sum(1))


def linearise(views: Views, eps: float, alpha: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """products [M, 8, 8], gradient [M, 8], own and lean as [M, 9, S] J' W d (not yet divided), and slope [N, S] d' w r (not divided)."""
    y, image = views.target, views.image
    direction, bent = views.direction[image], views.bent[image] * views.depth[image][:, None]
    r = direction * views.depth[image][:, None] + views.position[image][..., None] - y
    rho = ((r * r).sum(1) + eps * eps).sqrt()
    weight = views.weight / rho
    zero = torch.zeros_like(y[:, 0])
    ones = torch.ones_like(zero)
    u, v, w = y.unbind(1)
    # Columns of d r: the pair's rotation, translation and log scale, the log focal length, the depth.
    columns = torch.stack(
        [
            torch.stack([zero, w, -v], 1),
            torch.stack([-w, zero, u], 1),
            torch.stack([v, -u, zero], 1),
            torch.stack([-ones, zero, zero], 1),
            torch.stack([zero, -ones, zero], 1),
            torch.stack([zero, zero, -ones], 1),
            -y,
            bent,
            direction,
        ],
        dim=1,
    )  # [M, 9, 3, S]
    normal = r / rho[:, None]
    along = (columns * normal[:, None]).sum(2)  # [M, 9, S]
    weighted = weight[:, None, None] * (columns - alpha * along[:, :, None] * normal[:, None])
    products = torch.einsum("macs,mbcs->mab", columns[:, :8], weighted[:, :8])
    gradient = (columns * (weight[:, None] * r)[:, None]).sum(2)  # [M, 9, S]
    by_depth = (columns * weighted[:, 8:9]).sum(2)
    return products, gradient[:, :8].sum(-1), by_depth, views.summed(gradient[:, 8])
