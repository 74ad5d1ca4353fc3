"""Height fields: ground given by heights on a grid, smooth in between; rays march over it and close in on the surface.

A march takes steps that grow with the distance, so that what a step covers stays the same in the picture; a tip of a ridge thinner than
a step may be missed. Has not run on a GPU yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXTENT = 80.0  # metres: edge of the field's square, whose middle is the scene's origin
STEPS, REFINED, SHADOW_STEPS = 40, 6, 10
START, END = 0.15, 60.0  # metres along a ray


def march(field: Tensor, origin: Tensor, direction: Tensor) -> Tensor:
    """Ray parameters [V, N] at which `origin` [V, 3, 1 or N] + t `direction` [V, 3, N] first meets `field` [V, G, G], else inf."""
    length = direction.square().sum(1).sqrt()
    ratio = (END / START) ** (1 / (STEPS - 1))
    before = torch.zeros_like(length)
    low, high = torch.full_like(length, torch.inf), torch.full_like(length, torch.inf)
    found = torch.zeros_like(length, dtype=torch.bool)
    for step in range(STEPS):
        t = START * ratio**step / length
        under = _above(field, origin, direction, t) < 0
        new = under & ~found
        low, high = torch.where(new, before, low), torch.where(new, t, high)
        found, before = found | under, t
    low, high = torch.where(found, low, 0.5), torch.where(found, high, 1.0)
    t = 0.5 * (low + high)
    for _ in range(REFINED):  # Newton's step, or half of what is left where it would leave that
        x, y, z = (origin[:, axis] + t * direction[:, axis] for axis in range(3))
        ground, along_x, along_y = height(field, x, y)
        under = z < ground
        low, high = torch.where(under, low, t), torch.where(under, t, high)
        ahead = t - (z - ground) / (direction[:, 2] - along_x * direction[:, 0] - along_y * direction[:, 1])
        rounding = 1e-5 * high  # else what has arrived at an end would be sent back to the middle
        t = torch.where((ahead >= low - rounding) & (ahead <= high + rounding), ahead, 0.5 * (low + high))
    return torch.where(found, t, torch.inf)


def shaded(field: Tensor, start: Tensor, way: Tensor) -> Tensor:
    """Whether the field stands between `start` [V, 3, N] and the light at `start + way`, looked at in some places: [V, N] bool."""
    toward = way / way.square().sum(1, keepdim=True).sqrt()
    dark = torch.zeros_like(way[:, 0], dtype=torch.bool)
    for step in range(SHADOW_STEPS):
        dark = dark | (_above(field, start, toward, torch.full_like(way[:, 0], 0.2 * 1.6**step)) < 0)
    return dark


def height(field: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Height of `field` [V, G, G] at `x`, `y` [V, N] in metres, and its slopes along x and y: a quadratic B-spline's."""
    size = field.shape[-1]
    cell = EXTENT / size
    row_weights, row_slopes, rows = _spline(y / cell + size / 2, size)
    column_weights, column_slopes, columns = _spline(x / cell + size / 2, size)
    flat = field.flatten(1)
    total, along_x, along_y = (torch.zeros_like(x) for _ in range(3))
    for row, row_weight, row_slope in zip(rows, row_weights, row_slopes, strict=True):
        for column, weight, slope in zip(columns, column_weights, column_slopes, strict=True):
            corner = flat.gather(1, row * size + column)
            total = total + row_weight * weight * corner
            along_x = along_x + row_weight * slope * corner
            along_y = along_y + row_slope * weight * corner
    return total, along_x / cell, along_y / cell


def _spline(place: Tensor, size: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Weights, slopes and indices of the three samples around `place`, in cells."""
    middle = place.clamp(1.0, size - 2.001).floor()
    f = place - middle
    weights = (0.5 * (1 - f) ** 2, 0.5 + f * (1 - f), 0.5 * f**2)
    index = middle.long()
    return weights, (f - 1, 1 - 2 * f, f), (index - 1, index, index + 1)


def _above(field: Tensor, origin: Tensor, direction: Tensor, t: Tensor) -> Tensor:
    """Height over the ground; positive outside of the field."""
    x, y, z = (origin[:, axis] + t * direction[:, axis] for axis in range(3))
    inside = torch.maximum(x.abs(), y.abs()) < 0.48 * EXTENT
    return torch.where(inside, z - height(field, x, y)[0], 1.0)
