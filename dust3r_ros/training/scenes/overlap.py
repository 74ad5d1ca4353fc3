"""Covisibility by depth test: which points of one view another view sees."""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.training.pairs import PairBatch, View, points_in

TOLERANCE = 0.01  # share of the depth


def seen(points: Tensor, depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Which `points` [V, N, 3], in its own frame, a view with `depth` [V, H, W] (inf: the sky) and `intrinsics` [V, 4] sees: [V, N] bool.

    A point is seen where its depth is within those of the four pixels around it; so that slanted surfaces see themselves at any resolution.
    """
    rows, columns = depth.shape[1:]
    x, y, _ = projected(points, intrinsics)
    inside = (points[..., 2] > 1e-4) & (x >= -0.5) & (x <= columns - 0.5) & (y >= -0.5) & (y <= rows - 0.5)
    left, top = (x.nan_to_num().clamp(0, columns - 1).floor(), y.nan_to_num().clamp(0, rows - 1).floor())
    right, low = (left + 1).clamp_max(columns - 1), (top + 1).clamp_max(rows - 1)
    corners = torch.stack([(line * columns + place).long() for line in (top, low) for place in (left, right)])
    around = depth.flatten(1)[None].expand(4, -1, -1).gather(2, corners)
    z = points[..., 2]
    return inside & (z <= around.amax(0) * (1 + TOLERANCE)) & (z >= around.amin(0) * (1 - TOLERANCE))


def projected(points: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel x, y and depth of `points` [V, N, 3] in the camera's frame."""
    fx, fy, cx, cy = (value[:, None] for value in intrinsics.unbind(-1))
    z = points[..., 2].clamp_min(1e-6)
    return points[..., 0] / z * fx + cx, points[..., 1] / z * fy + cy, points[..., 2]


def overlaps(batch: PairBatch) -> Tensor:
    """Share [B] of each view's valid pixels that the other one sees; the lesser of the two ways."""
    return torch.minimum(_one_way(batch.first, batch.second), _one_way(batch.second, batch.first))


def _one_way(view: View, other: View) -> Tensor:
    depth = torch.where(other.valid, other.depth, torch.inf)
    found = seen(points_in(view, other.pose).flatten(1, 2), depth, other.intrinsics) & view.valid.flatten(1)
    return found.sum(1) / view.valid.flatten(1).sum(1).clamp_min(1)
