"""What the alignment's kernels compute, in torch: the specification, tested against the compiled loops of the CPU too.

Residual r = R_v ray D + t_v - y, y = s_e R_e X + T_e, with increments on the left: y changes by w x y + t + sigma y for a pair's
(w, t, sigma), and a pose moves its points likewise; its derivative is taken at y too, which makes it minus the pair's and keeps the
freedom of moving the whole scene exact. The weight of a residual is c / rho (I - alpha r r' / rho^2), rho = sqrt(|r|^2 + eps^2): alpha 0
is reweighted least squares, alpha 1 Newton.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EDGE = 7
LEAST = 1e-30  # of a sum of weights, float32


@dataclass(frozen=True, eq=False)
class Sides:
    """What does not change while a scene is solved: N images, M sides (one image as one pair has it), S pixels an image, on one device."""

    start: Tensor  # [N + 1] int64: image n has the sides start[n] to start[n + 1]
    image: Tensor  # [M] int64
    pair: Tensor  # [M] int64
    points: Tensor  # [M, 3, S] float64, in the pair's own frame
    weight: Tensor  # [M, S] float64, 0 where nothing is known
    pixels: Tensor  # [N, 2, S] float64, from the principal point

    def summed(self, values: Tensor) -> Tensor:
        """[M, ...] to [N, ...]: over the sides of each image."""
        out = torch.zeros(len(self.pixels), *values.shape[1:], dtype=values.dtype, device=values.device)
        return out.index_add_(0, self.image, values)


@dataclass(frozen=True, eq=False)
class Scene:
    """What changes with every step, float64."""

    cameras: Tensor  # [N, 13] rotation to the world by rows, position, focal length
    pairs: Tensor  # [E, 12] scale times rotation by rows, offset

    def targets(self, sides: Sides) -> Tensor:
        """[M, 3, S]: every side's points in the world."""
        own = self.pairs[sides.pair]
        return own[:, :9].view(-1, 3, 3) @ sides.points + own[:, 9:, None]

    def rays(self, sides: Sides) -> tuple[Tensor, Tensor]:
        """[N, 3, S] one unit of depth along each pixel's ray, in the world; and how it changes with the log focal length."""
        rotation = self.cameras[:, :9].view(-1, 3, 3)
        xy = sides.pixels / self.cameras[:, 12, None, None]
        return rotation @ torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1), -rotation[:, :, :2] @ xy


def fit_depths(sides: Sides, scene: Scene, depth: Tensor, eps: float, rounds: int, anew: bool) -> tuple[Tensor, Tensor]:
    """depth [N, S] of the least sum of sqrt(distance^2 + eps^2), and each image's sum [N]. `anew`: from the best single pair's depth."""
    image = sides.image
    offset = scene.targets(sides) - scene.cameras[image, 9:12, None]
    rays, _ = scene.rays(sides)
    direction, square = rays[image], (rays * rays).sum(1)
    a = (offset * direction).sum(1) / square[image]
    b = ((offset - a[:, None] * direction) ** 2).sum(1) + eps * eps
    if anew:
        rows = []
        for n in range(len(depth)):  # of what single pairs say, that with the least cost
            own = image == n
            spread = square[n] * (a[own][:, None] - a[own][None]) ** 2 + b[own][None]
            cost = (sides.weight[own][None] * spread.sqrt()).sum(1).where(sides.weight[own] > 0, torch.inf)
            best = a[own].gather(0, cost.argmin(0, keepdim=True))[0]
            rows.append(torch.where(torch.isfinite(cost.min(0).values), best, depth[n]))
        depth = torch.stack(rows)

    def distance() -> Tensor:
        return (square[image] * (depth[image] - a) ** 2 + b).sqrt()

    for _ in range(rounds):
        say = sides.weight / distance()
        depth = sides.summed(say * a) / sides.summed(say).clamp(min=1e-300)
    return depth, sides.summed((sides.weight * distance()).sum(1))


def linearise(sides: Sides, scene: Scene, depth: Tensor, eps: float, alpha: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The residuals' second-order model, each image alone.

    products [M, 8, 8]: J' W J over each side's pixels, of its pair's 7 unknowns and the log focal length; gradient [M, 8]: J' w r.
    shared [7 M + N, S] float32: J' W d over the root of d' W d, image by image, the sides' first, the focal length's row last;
    slope [N, S]: d' w r over that root.
    """
    y, image = scene.targets(sides), sides.image
    rays, bents = scene.rays(sides)
    direction, bent = rays[image], bents[image] * depth[image][:, None]
    r = direction * depth[image][:, None] + scene.cameras[image, 9:12, None] - y
    rho = ((r * r).sum(1) + eps * eps).sqrt()
    weight = sides.weight / rho
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
    summed = sides.summed(by_depth)
    root = torch.where(summed[:, 8] > 0, summed[:, 8].clamp(min=1e-300).rsqrt(), 0.0)
    shared = torch.empty(EDGE * len(y) + len(depth), depth.shape[1], dtype=torch.float32, device=depth.device)
    edges, focals = shared_rows(sides)
    shared[edges] = (by_depth[:, :EDGE] * root[image][:, None]).flatten(0, 1).float()
    shared[focals] = (summed[:, EDGE] * root).float()
    return products, gradient[:, :8].sum(-1), shared, sides.summed(gradient[:, 8]) * root


def shared_rows(sides: Sides) -> tuple[Tensor, Tensor]:
    """Where in `shared` the sides' rows lie, [7 M], and the focal lengths', [N]."""
    rows = torch.arange(len(sides.image), device=sides.image.device) * EDGE + sides.image
    edges = rows[:, None] + torch.arange(EDGE, device=rows.device)
    return edges.flatten(), sides.start[1:] * EDGE + torch.arange(len(sides.pixels), device=rows.device)


def dense_depths(
    points: Sequence[Tensor],
    confidences: Sequence[Tensor],
    transforms: Tensor,
    rays: tuple[Tensor, Tensor],
    rounds: Tensor,
    known: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """depth [H, W] of least sum over K sides of log confidence times distance; the largest confidence [H, W]; each side's sum [K] float64.

    points K of [H, W, 3] and confidences K of [H, W], float32; transforms [K, 3, 4] from the pairs' frames to the camera's; rays (u [W],
    v [H]), (u, v, 1) through a pixel. rounds [R, 2]: the smoothing squared, which must fall to lead past the kinks of the norm, and how far
    the step goes from reweighting (0) to Newton's (1). A confidence up to `known` says nothing, nor does a point that is not finite.
    """
    height, width = confidences[0].shape
    u, v = rays[0].repeat(height), rays[1].repeat_interleave(width)
    square = u * u + v * v + 1
    along, off, weight = (torch.empty(len(points), height * width, device=u.device) for _ in range(3))
    most = torch.ones_like(u)
    for k, (own, confidence) in enumerate(zip(points, confidences, strict=True)):
        x, y, z = (own.reshape(-1, 3).float() @ transforms[k, :, :3].T + transforms[k, :, 3]).unbind(1)
        a = (x * u + y * v + z) / square
        b = (x - a * u) ** 2 + (y - a * v) ** 2 + (z - a) ** 2
        finite, c = b < 1e30, confidence.reshape(-1).float()
        c = torch.where(finite & (c > known) & (c < 1e30), c, 1.0)
        along[k], off[k], weight[k] = torch.where(finite, a, 0.0), torch.where(finite, b, 0.0), c.log()
        most = torch.maximum(most, c)
    depth = (weight * along).sum(0) / (weight.sum(0) + LEAST)
    for eps, alpha in rounds.tolist():
        d = depth - along
        far = square * d * d
        inverse = 1 / (far + off + eps)
        say = weight * inverse.sqrt()
        depth = depth - (say * d).sum(0) / ((say * (1 - alpha * far * inverse)).sum(0) + LEAST)
    depth = depth.clamp(min=0.0)
    cost = (weight * (square * (depth - along) ** 2 + off).sqrt()).sum(1, dtype=torch.float64)
    return depth.view(height, width), most.view(height, width), cost
