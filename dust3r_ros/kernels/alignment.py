"""The alignment's kernels as functions of tensors: on a GPU the kernel, elsewhere its torch twin, as in `operations`.

Never run yet: no GPU was there when this was written. The kernels' arithmetic was tried on a CPU, and they compile for every architecture
that is tested.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dust3r_ros.kernels import alignment_twins as twins
from dust3r_ros.kernels.alignment_twins import EDGE, Scene, Sides
from dust3r_ros.kernels.errors import KernelError
from dust3r_ros.kernels.launch import Argument, Float64, Int32, launch
from dust3r_ros.kernels.operations import either

__all__ = ["EDGE", "Scene", "Sides", "dense_depths", "fit_depths", "linearise"]

THREADS = 128
BY_DEPTH = 10  # rows of each side that `linearise` hands to `eliminate_depths`


def fit_depths(sides: Sides, scene: Scene, depth: Tensor, eps: float, rounds: int, anew: bool) -> tuple[Tensor, Tensor]:
    """depth [N, S] float64 of the least sum of sqrt(distance^2 + eps^2) after `rounds` reweightings, and each image's sum [N].

    From `depth`, or, `anew`, from the best single pair's. Raises KernelError for shapes that do not belong together.
    """
    _check(sides, scene, depth)

    def kernel() -> tuple[Tensor, Tensor]:
        images, count = depth.shape
        fitted, along, off = depth.clone(), torch.empty_like(sides.weight), torch.empty_like(sides.weight)
        grid = _blocks(count), images
        cost = depth.new_empty(images, grid[0])
        arguments = [*_inputs(sides.start, sides, scene), fitted, along, off, cost]
        if cost.numel():
            numbers = [Float64(eps), Int32(count), Int32(rounds), Int32(anew)]
            launch("alignment", "fit_depths", grid, THREADS, [*arguments, *numbers], {"THREADS": THREADS})
        return fitted, cost.sum(1)

    inputs = depth, *vars(sides).values(), *vars(scene).values()
    return either("fit_depths", kernel, lambda: twins.fit_depths(sides, scene, depth, eps, rounds, anew), True, *inputs)


def linearise(sides: Sides, scene: Scene, depth: Tensor, eps: float, alpha: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """products [M, 8, 8], gradient [M, 8], shared [7 M + N, S] float32 and slope [N, S], as `alignment_twins.linearise` says.

    Raises KernelError for shapes that do not belong together.
    """
    _check(sides, scene, depth)

    def kernel() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (images, count), total = depth.shape, len(sides.pair)
        products, gradient = depth.new_empty(total, 8, 8), depth.new_empty(total, 8)
        by_depth = depth.new_empty(total, BY_DEPTH, count)
        shared, slope = depth.new_empty(EDGE * total + images, count, dtype=torch.float32), torch.empty_like(depth)
        arguments = [*_inputs(sides.image, sides, scene), depth.contiguous(), products, gradient, by_depth]
        if by_depth.numel():
            numbers = [Float64(eps), Float64(alpha), Int32(count)]
            launch("alignment", "linearise", (total, 1), THREADS, [*arguments, *numbers], {"THREADS": THREADS})
            rest: list[Argument] = [sides.start, by_depth, shared, slope, Int32(count)]
            launch("alignment", "eliminate_depths", (_blocks(count), images), THREADS, rest, {"THREADS": THREADS})
        return products, gradient, shared, slope

    inputs = depth, *vars(sides).values(), *vars(scene).values()
    return either("linearise", kernel, lambda: twins.linearise(sides, scene, depth, eps, alpha), True, *inputs)


def dense_depths(
    points: Sequence[Tensor],
    confidences: Sequence[Tensor],
    transforms: Tensor,
    rays: tuple[Tensor, Tensor],
    rounds: Tensor,
    known: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """depth [H, W], the largest confidence [H, W] and each side's cost [K] float64, as `alignment_twins.dense_depths` says.

    points K of [H, W, 3], confidences K of [H, W]; transforms [K, 3, 4], rays (u [W], v [H]) and rounds [R, 2] float32.
    Raises KernelError for shapes that do not belong together.
    """
    count = len(points)
    size = tuple(confidences[0].shape) if confidences else (0, 0)
    fit = all(tuple(c.shape) == size for c in confidences) and all(tuple(p.shape) == (*size, 3) for p in points)
    if not count or len(confidences) != count or not fit or transforms.shape != (count, 3, 4) or (len(rays[1]), len(rays[0])) != size:
        raise KernelError(
            f"{count} pointmaps and {len(confidences)} confidences of {size}, transforms {tuple(transforms.shape)}, rays "
            f"{len(rays[0])} by {len(rays[1])}: give K of [H, W, 3] and of [H, W], [K, 3, 4], W by H"
        )

    def kernel() -> tuple[Tensor, Tensor, Tensor]:
        device, (height, width) = points[0].device, size
        # Held until the launch: copies that these may be are freed in the stream's order.
        flat = [(own.float().contiguous(), confidence.float().contiguous()) for own, confidence in zip(points, confidences, strict=True)]
        addresses = torch.tensor([[own.data_ptr(), confidence.data_ptr()] for own, confidence in flat], device=device)
        depth, most = (torch.empty(height, width, device=device) for _ in range(2))
        cost = torch.empty(count, _blocks(height * width), dtype=torch.float64, device=device)
        tables = [table.to(device, torch.float32).contiguous() for table in (transforms, *rays, rounds)]
        if cost.numel():
            arguments: list[Argument] = [addresses, *tables, depth, most, cost, Int32(count), Int32(len(rounds)), Int32(width)]
            launch(
                "dense_depths",
                "dense_depths",
                (cost.shape[1], 1),
                THREADS,
                [*arguments, float(known), height * width],
                {"THREADS": THREADS},
            )
        return depth, most, cost.sum(1)

    def twin() -> tuple[Tensor, Tensor, Tensor]:
        device = points[0].device
        u, v = (ray.to(device) for ray in rays)
        return twins.dense_depths(points, confidences, transforms.to(device), (u, v), rounds, known)

    return either("dense_depths", kernel, twin, True, *points, *confidences)


def _inputs(owner: Tensor, sides: Sides, scene: Scene) -> list[Argument]:
    fixed = (owner, sides.pair, sides.points, sides.weight, sides.pixels, scene.cameras, scene.pairs)
    return [tensor.contiguous() for tensor in fixed]


def _blocks(count: int) -> int:
    return -(-count // THREADS)


def _check(sides: Sides, scene: Scene, depth: Tensor) -> None:
    images, count = depth.shape
    total = len(sides.pair)
    shapes = {
        "start": (sides.start, (images + 1,)),
        "image": (sides.image, (total,)),
        "points": (sides.points, (total, 3, count)),
        "weight": (sides.weight, (total, count)),
        "pixels": (sides.pixels, (images, 2, count)),
        "cameras": (scene.cameras, (images, 13)),
        "pairs": (scene.pairs, (len(scene.pairs), 12)),
        "depth": (depth, (images, count)),
    }
    for name, (tensor, shape) in shapes.items():
        whole = name in ("start", "image")
        if tuple(tensor.shape) != shape or tensor.dtype != (torch.int64 if whole else torch.float64):
            raise KernelError(f"{name} {tuple(tensor.shape)} {tensor.dtype}: give {shape} {'int64' if whole else 'float64'}")
