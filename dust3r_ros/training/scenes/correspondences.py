"""True correspondences between the views of pairs, for losses on descriptors."""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.training.pairs import PairBatch, points_in
from dust3r_ros.training.scenes.overlap import projected

AGREEMENT = 0.005  # of the depth: how near a point's depth must be to the other view's, between four of its pixels


def correspondences(batch: PairBatch, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """`count` pixels of each first view that its second view sees too: `pixels_1` [B, M, 2] (x and y, whole), `pixels_2` [B, M, 2]
    (between pixels), and `valid` [B, M] bool, False where a pair has fewer than `count`.

    Pixels are drawn without replacement from all that are visible in both by depth test: the four pixels of the second view around the
    point agree with its depth, as on a plane (inverse depth is linear in the picture). `generator` is on the batch's device; None takes
    the first ones.
    """
    first, second = batch.first, batch.second
    columns = first.depth.shape[2]
    points = points_in(first, second.pose).flatten(1, 2)
    x, y, z = projected(points, second.intrinsics)
    found = first.valid.flatten(1) & _agrees(x, y, z, torch.where(second.valid, second.depth, torch.inf))
    draw = torch.rand(found.shape, device=found.device, generator=generator) if generator is not None else torch.zeros_like(z)
    score = torch.where(found, draw, -1.0)
    best = score.topk(min(count, score.shape[1]), dim=1)
    pixels_1 = torch.stack([best.indices % columns, best.indices // columns], -1).float()
    pixels_2 = torch.stack([x.gather(1, best.indices), y.gather(1, best.indices)], -1)
    valid = best.values >= 0
    pixels_2 = torch.where(valid[..., None], pixels_2, 0.0)
    missing = count - valid.shape[1]
    if missing > 0:
        pixels_1, pixels_2 = (torch.nn.functional.pad(value, (0, 0, 0, missing)) for value in (pixels_1, pixels_2))
        valid = torch.nn.functional.pad(valid, (0, missing))
    return pixels_1, pixels_2, valid


def _agrees(x: Tensor, y: Tensor, z: Tensor, depth: Tensor) -> Tensor:
    rows, columns = depth.shape[1:]
    inside = (z > 1e-4) & (x >= 0) & (x <= columns - 1) & (y >= 0) & (y <= rows - 1)
    x, y = x.clamp(0, columns - 1), y.clamp(0, rows - 1)
    left, top = x.floor().clamp_max(columns - 2), y.floor().clamp_max(rows - 2)
    across, down = x - left, y - top
    inverse = (1 / depth).flatten(1)
    agreed = inside
    expected = torch.zeros_like(x)
    for line, low in ((top, 1 - down), (top + 1, down)):
        for place, right in ((left, 1 - across), (left + 1, across)):
            value = inverse.gather(1, (line * columns + place).long())
            agreed = agreed & ((z * value - 1).abs() < 0.1)
            expected = expected + low * right * value
    return agreed & ((z * expected - 1).abs() < AGREEMENT)
