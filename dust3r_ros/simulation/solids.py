"""Solids that rays meet in closed form, and the charts (u, v in metres) through which they wear their textures.

The world is right-handed with z up. A solid stands at `centre`, turned by `yaw` about z. `reach` distances are in units of the ray's
direction: with a direction whose camera z is 1 the distance is the depth along z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

# Face 2 * axis + (1 on the positive side): which local axes run along u and v, and their signs, seen from outside with z up.
_FACE_U = ((1, -1), (1, 1), (0, 1), (0, -1), (0, 1), (0, 1))
_FACE_V = ((2, -1), (2, -1), (2, -1), (2, -1), (1, 1), (1, -1))


@dataclass(frozen=True)
class Solid:
    """A convex body. `inside` turns it into a room: seen, and met, from within."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]  # m, of the bounding box in the solid's own axes
    yaw: float = 0.0  # radians
    inside: bool = False

    @property
    def rotation(self) -> NDArray[np.float64]:
        """Solid to world, (3, 3)."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

    def to_local(self, points: Array) -> Array:
        return (points - np.asarray(self.centre, points.dtype)) @ self.rotation.astype(points.dtype)

    def to_world(self, points: Array) -> Array:
        return points @ self.rotation.T.astype(points.dtype) + np.asarray(self.centre, points.dtype)

    def corners(self) -> Array:
        """Corners of the bounding box in the world, (8, 3)."""
        signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
        return self.to_world(signs * np.asarray(self.size))

    def reach(self, origins: Array, directions: Array) -> Array:
        """Distance (N,) to the surface along world rays (origins (3,) or (N, 3), directions (N, 3)); inf where there is none ahead."""
        rotation = self.rotation.astype(directions.dtype)
        local = (np.asarray(origins, directions.dtype) - np.asarray(self.centre, directions.dtype)) @ rotation
        return self._reach(local, directions @ rotation)

    def charts(self) -> list[tuple[float, float]]:
        """Width and height in metres of every chart."""
        raise NotImplementedError

    def locate(self, points: Array) -> tuple[NDArray[np.intp], Array, Array]:
        """Chart, u and v (each (N,), metres from the chart's top left) of local surface points (N, 3)."""
        raise NotImplementedError

    def surface(self, chart: int, u: Array, v: Array) -> tuple[Array, Array]:
        """Local points (N, 3) and outward normals (N, 3) at u, v of a chart: the inverse of `locate`."""
        raise NotImplementedError

    def _reach(self, origins: Array, directions: Array) -> Array:
        raise NotImplementedError


class Box(Solid):
    def _reach(self, origins: Array, directions: Array) -> Array:
        half = np.asarray(self.size, directions.dtype) / 2
        near = np.full(len(directions), -np.inf, directions.dtype)
        far = np.full(len(directions), np.inf, directions.dtype)
        with np.errstate(divide="ignore", invalid="ignore"):
            for axis in range(3):  # the slab method (Kay and Kajiya 1986)
                inverse = 1 / directions[:, axis]
                low = (-half[axis] - origins[..., axis]) * inverse
                high = (half[axis] - origins[..., axis]) * inverse
                near = np.fmax(near, np.fmin(low, high))
                far = np.fmin(far, np.fmax(low, high))
        if self.inside:
            return np.where(far > 0, far, np.inf).astype(directions.dtype, copy=False)
        return np.where((near <= far) & (near > 0), near, np.inf).astype(directions.dtype, copy=False)

    def charts(self) -> list[tuple[float, float]]:
        return [(self.size[_FACE_U[face][0]], self.size[_FACE_V[face][0]]) for face in range(6)]

    def locate(self, points: Array) -> tuple[NDArray[np.intp], Array, Array]:
        half = np.asarray(self.size, points.dtype) / 2
        axis = np.argmin(np.abs(np.abs(points) - half), axis=1)
        rows = np.arange(len(points))
        face = 2 * axis + (points[rows, axis] > 0)
        u, v = np.empty(len(points), points.dtype), np.empty(len(points), points.dtype)
        for index in np.flatnonzero(np.bincount(face)):
            on = face == index
            (u_axis, u_sign), (v_axis, v_sign) = _FACE_U[index], _FACE_V[index]
            u[on] = half[u_axis] + u_sign * points[on, u_axis]
            v[on] = half[v_axis] + v_sign * points[on, v_axis]
        return face, u, v

    def surface(self, chart: int, u: Array, v: Array) -> tuple[Array, Array]:
        half = np.asarray(self.size) / 2
        (u_axis, u_sign), (v_axis, v_sign) = _FACE_U[chart], _FACE_V[chart]
        points, normals = np.zeros((len(u), 3)), np.zeros((len(u), 3))
        side = 1 if chart % 2 else -1
        points[:, chart // 2] = side * half[chart // 2]
        points[:, u_axis] = u_sign * (u - half[u_axis])
        points[:, v_axis] = v_sign * (v - half[v_axis])
        normals[:, chart // 2] = -side if self.inside else side
        return points, normals


class Sphere(Solid):
    """`size` holds the diameter three times. One chart: longitude along u, from the north pole down along v."""

    @property
    def radius(self) -> float:
        return self.size[0] / 2

    def _reach(self, origins: Array, directions: Array) -> Array:
        a = np.einsum("nc,nc->n", directions, directions)
        b = np.sum(origins * directions, axis=-1)
        # The distance of the ray's line to the centre by a cross product: b^2 - a c loses digits in float32.
        miss = np.cross(np.broadcast_to(origins, directions.shape), directions)
        root = a * directions.dtype.type(self.radius**2) - np.einsum("nc,nc->n", miss, miss)
        distance = (-b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root > 0) & (distance > 0), distance, np.inf).astype(directions.dtype, copy=False)

    def charts(self) -> list[tuple[float, float]]:
        return [(2 * math.pi * self.radius, math.pi * self.radius)]

    def locate(self, points: Array) -> tuple[NDArray[np.intp], Array, Array]:
        u = (np.arctan2(points[:, 1], points[:, 0]) + math.pi) * self.radius
        v = np.arccos(np.clip(points[:, 2] / self.radius, -1, 1)) * self.radius
        return np.zeros(len(points), np.intp), u, v

    def surface(self, chart: int, u: Array, v: Array) -> tuple[Array, Array]:  # noqa: ARG002 (there is one chart)
        longitude, polar = u / self.radius - math.pi, v / self.radius
        normals = np.stack([np.sin(polar) * np.cos(longitude), np.sin(polar) * np.sin(longitude), np.cos(polar)], axis=1)
        return normals * self.radius, normals


class Cylinder(Solid):
    """Upright; `size` is diameter, diameter, height. Charts: the side (angle along u), the bottom, the top."""

    @property
    def radius(self) -> float:
        return self.size[0] / 2

    def _reach(self, origins: Array, directions: Array) -> Array:
        half = directions.dtype.type(self.size[2] / 2)
        origins = np.broadcast_to(origins, directions.shape)
        flat, start = directions[:, :2], origins[:, :2]
        with np.errstate(divide="ignore", invalid="ignore"):
            a = np.einsum("nc,nc->n", flat, flat)
            b = np.einsum("nc,nc->n", flat, start)
            miss = start[:, 0] * flat[:, 1] - start[:, 1] * flat[:, 0]
            root = np.sqrt(a * directions.dtype.type(self.radius**2) - miss**2)  # NaN: the line misses
            low = (-half - origins[:, 2]) / directions[:, 2]
            high = (half - origins[:, 2]) / directions[:, 2]
            near = np.maximum((-b - root) / a, np.minimum(low, high))
            far = np.minimum((-b + root) / a, np.maximum(low, high))
            return np.where((near <= far) & (near > 0), near, np.inf).astype(directions.dtype, copy=False)

    def charts(self) -> list[tuple[float, float]]:
        return [(2 * math.pi * self.radius, self.size[2]), (self.size[0], self.size[0]), (self.size[0], self.size[0])]

    def locate(self, points: Array) -> tuple[NDArray[np.intp], Array, Array]:
        off_side = np.abs(np.hypot(points[:, 0], points[:, 1]) - self.radius)
        on_cap = np.abs(np.abs(points[:, 2]) - self.size[2] / 2) < off_side
        chart = np.where(on_cap, np.where(points[:, 2] > 0, 2, 1), 0)
        angle = np.arctan2(points[:, 1], points[:, 0]) + math.pi
        u = np.where(on_cap, points[:, 0] + self.radius, angle * self.radius)
        v = np.where(on_cap, points[:, 1] + self.radius, self.size[2] / 2 - points[:, 2])
        return chart, u, v

    def surface(self, chart: int, u: Array, v: Array) -> tuple[Array, Array]:
        if chart:
            height = np.full(len(u), (chart - 1.5) * self.size[2])
            points = np.stack([u - self.radius, v - self.radius, height], axis=1)
            return points, np.tile([0.0, 0.0, 2.0 * (chart - 1.5)], (len(u), 1))
        angle = u / self.radius - math.pi
        normals = np.stack([np.cos(angle), np.sin(angle), np.zeros(len(u))], axis=1)
        return np.concatenate([normals[:, :2] * self.radius, (self.size[2] / 2 - v)[:, None]], axis=1), normals
