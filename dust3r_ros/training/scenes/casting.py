"""Rays against all solids of their scene at once: the nearest hit of each ray, and whether anything stands between two points.

Every ray meets every solid (about 40), as elementwise work without branches: fixed shapes, no synchronisation. Has not run on a GPU yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.training.scenes.solids import FIRST_BOX, FIRST_CYLINDER, FIRST_SPHERE

NEAR = 1e-3  # of a ray's parameter; nearer hits are the surface that the ray starts from
Interval = tuple[Tensor, Tensor]


def nearest(to_unit: Tensor, openings: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """First hits of rays `origin` [V, 3] + t `direction` [V, 3, N]: t [V, N], inf where none, and the index of the solid hit [V, N]."""
    parameter = _entries(to_unit, openings, _starts(to_unit, origin[..., None]), _turned(to_unit, direction))
    return parameter.min(dim=1)


def blocked(to_unit: Tensor, openings: Tensor, start: Tensor, way: Tensor) -> Tensor:
    """Whether anything stands on the way from `start` [V, 3, N] to `start + way` [V, 3, N], ends excluded: [V, N] bool."""
    return _entries(to_unit, openings, _starts(to_unit, start), _turned(to_unit, way)).amin(dim=1) < 1 - NEAR


def _turned(to_unit: Tensor, direction: Tensor) -> Tensor:
    """[V, 3, P, N]"""
    views, solids = to_unit.shape[:2]
    linear = to_unit[..., :3].transpose(1, 2).reshape(views, 3 * solids, 3)
    return (linear @ direction).view(views, 3, solids, -1)


def _starts(to_unit: Tensor, start: Tensor) -> Tensor:
    return _turned(to_unit, start) + to_unit[..., 3].transpose(1, 2)[..., None]


def _entries(to_unit: Tensor, openings: Tensor, start: Tensor, way: Tensor) -> Tensor:
    """Ray parameters [V, P, N] at which solids are entered, inf where they are not."""
    del to_unit
    kinds = (slice(0, FIRST_BOX), slice(FIRST_BOX, FIRST_SPHERE), slice(FIRST_SPHERE, FIRST_CYLINDER), slice(FIRST_CYLINDER, None))
    panels, boxes, spheres, cylinders = ((start[:, :, kind].unbind(1), way[:, :, kind].unbind(1)) for kind in kinds)
    return torch.cat([_panel(*panels, openings), _entered(_slabs(*boxes)), _entered(_ball(*spheres)), _entered(_tin(*cylinders))], dim=1)


def _panel(start: tuple[Tensor, ...], way: tuple[Tensor, ...], openings: Tensor) -> Tensor:
    t = -start[2] / way[2]
    x, y = start[0] + t * way[0], start[1] + t * way[1]
    there = (torch.maximum(x.abs(), y.abs()) <= 1) & (t > NEAR)
    for opening in openings.unbind(2):
        middle_x, middle_y, half_x, half_y = (value[..., None] for value in opening.unbind(-1))
        there &= ((x - middle_x).abs() > half_x) | ((y - middle_y).abs() > half_y)
    return torch.where(there, t, torch.inf)


def _slab(start: Tensor, way: Tensor) -> Interval:
    inverse = way.reciprocal()
    middle, half = -start * inverse, inverse.abs()
    return middle - half, middle + half


def _slabs(start: tuple[Tensor, ...], way: tuple[Tensor, ...]) -> Interval:
    """Kay and Kajiya's slabs (1986)."""
    x, y, z = (_slab(s, w) for s, w in zip(start, way, strict=True))
    return torch.maximum(torch.maximum(x[0], y[0]), z[0]), torch.minimum(torch.minimum(x[1], y[1]), z[1])


def _ball(start: tuple[Tensor, ...], way: tuple[Tensor, ...]) -> Interval:
    return _round(start, way)


def _tin(start: tuple[Tensor, ...], way: tuple[Tensor, ...]) -> Interval:
    side, caps = _round(start[:2], way[:2]), _slab(start[2], way[2])
    return torch.maximum(side[0], caps[0]), torch.minimum(side[1], caps[1])


def _round(start: tuple[Tensor, ...], way: tuple[Tensor, ...]) -> Interval:
    """Where a ray is within 1 of the origin, from its nearest point: b^2 - ac would cancel far from small solids."""
    inverse = _dot(way, way).reciprocal()
    middle = -_dot(start, way) * inverse
    beside = tuple(s + middle * w for s, w in zip(start, way, strict=True))
    half = ((1 - _dot(beside, beside)) * inverse).sqrt()  # not a number where the ray passes by, which no comparison takes for a hit
    return middle - half, middle + half


def _dot(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + x * y
    return total


def _entered(interval: Interval) -> Tensor:
    near, far = interval
    return torch.where((near <= far) & (near > NEAR), near, torch.inf)
