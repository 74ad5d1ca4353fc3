"""Rays against all solids of their scene at once: the nearest hit of each ray, and whether anything stands between two points.

Every ray meets every solid (about 40), as elementwise work without branches: fixed shapes, no synchronisation, one kernel when compiled.
Has not run on a GPU yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.training.scenes.solids import FIRST_BOX, FIRST_CYLINDER, FIRST_SPHERE, WALLS

NEAR = 1e-3  # of a ray's parameter; nearer hits are the surface that the ray starts from
Interval = tuple[Tensor, Tensor]
Vector = tuple[Tensor, ...]


def nearest(to_unit: Tensor, openings: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """First hits of rays `origin` [V, 3, 1 or N] + t `direction` [V, 3, N]: t [V, N], inf where none, and the solid hit [V, N]."""
    return _entries(to_unit, openings, origin, direction).min(dim=1)


def blocked(to_unit: Tensor, openings: Tensor, start: Tensor, way: Tensor) -> Tensor:
    """Whether anything stands on the way from `start` [V, 3, N] to `start + way` [V, 3, N], ends excluded: [V, N] bool."""
    return _entries(to_unit, openings, start, way).amin(dim=1) < 1 - NEAR


def first_triangle(triangles: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """As `nearest`, of `triangles` [V, T, 3, 4]."""
    return _triangle(*_in_unit(triangles, origin, direction)).min(dim=1)


def triangles_between(triangles: Tensor, start: Tensor, way: Tensor) -> Tensor:
    """As `blocked`, of `triangles` [V, T, 3, 4]."""
    return _triangle(*_in_unit(triangles, start, way)).amin(dim=1) < 1 - NEAR


def _triangle(start: Vector, way: Vector) -> Tensor:
    t = -start[2] / way[2]
    x, y = start[0] + t * way[0], start[1] + t * way[1]
    return torch.where((x >= 0) & (y >= 0) & (x + y <= 1) & (t > NEAR), t, torch.inf)


def _entries(to_unit: Tensor, openings: Tensor, start: Tensor, way: Tensor) -> Tensor:
    """Ray parameters [V, P, N] at which solids are entered, inf where they are not."""
    kinds = (slice(0, WALLS), slice(WALLS, FIRST_BOX), slice(FIRST_BOX, FIRST_SPHERE), slice(FIRST_SPHERE, FIRST_CYLINDER))
    walls, panels, boxes, spheres, cylinders = (_in_unit(to_unit[:, kind], start, way) for kind in (*kinds, slice(FIRST_CYLINDER, None)))
    found = (_wall(*walls, openings), _panel(*panels)[0], _entered(_slabs(*boxes)), _entered(_round(*spheres)), _entered(_tin(*cylinders)))
    return torch.cat(found, dim=1)


def _in_unit(to_unit: Tensor, start: Tensor, way: Tensor) -> tuple[Vector, Vector]:
    """Start and way in each unit solid, x, y, z [V, P, 1 or N]."""
    s, w = start[:, None].unbind(2), way[:, None].unbind(2)
    rows = [[to_unit[:, :, i, j, None] for j in range(4)] for i in range(3)]
    return tuple(_dot(tuple(row[:3]), s) + row[3] for row in rows), tuple(_dot(tuple(row[:3]), w) for row in rows)


def _panel(start: Vector, way: Vector) -> tuple[Tensor, Tensor, Tensor]:
    """Entry, and x and y where the plane is met."""
    t = -start[2] / way[2]
    x, y = start[0] + t * way[0], start[1] + t * way[1]
    return torch.where((torch.maximum(x.abs(), y.abs()) <= 1) & (t > NEAR), t, torch.inf), x, y


def _wall(start: Vector, way: Vector, openings: Tensor) -> Tensor:
    t, x, y = _panel(start, way)
    for opening in openings.unbind(2):
        middle_x, middle_y, half_x, half_y = (value[..., None] for value in opening.unbind(-1))
        t = torch.where(((x - middle_x).abs() > half_x) | ((y - middle_y).abs() > half_y), t, torch.inf)
    return t


def _slab(start: Tensor, way: Tensor) -> Interval:
    inverse = way.reciprocal()
    middle, half = -start * inverse, inverse.abs()
    return middle - half, middle + half


def _slabs(start: Vector, way: Vector) -> Interval:
    """Kay and Kajiya's slabs (1986)."""
    x, y, z = (_slab(s, w) for s, w in zip(start, way, strict=True))
    return torch.maximum(torch.maximum(x[0], y[0]), z[0]), torch.minimum(torch.minimum(x[1], y[1]), z[1])


def _round(start: Vector, way: Vector) -> Interval:
    """Where a ray is within 1 of the origin, from its nearest point: b^2 - ac would cancel far from small solids."""
    inverse = _dot(way, way).reciprocal()
    middle = -_dot(start, way) * inverse
    beside = tuple(s + middle * w for s, w in zip(start, way, strict=True))
    room = 1 - _dot(beside, beside)
    half = (room.clamp_min(0) * inverse).sqrt()
    return torch.where(room < 0, torch.inf, middle - half), middle + half


def _tin(start: Vector, way: Vector) -> Interval:
    side, caps = _round(start[:2], way[:2]), _slab(start[2], way[2])
    return torch.maximum(side[0], caps[0]), torch.minimum(side[1], caps[1])


def _entered(interval: Interval) -> Tensor:
    near, far = interval
    return torch.where((near <= far) & (near > NEAR), near, torch.inf)


def _dot(a: Vector, b: Vector) -> Tensor:
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + x * y
    return total
