"""A scene: solids, the paint and light baked into a pyramid of textures per chart once it is seen, and what a camera sees of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry.camera import Camera
from dust3r_ros.simulation.lighting import LAMP, irradiance
from dust3r_ros.simulation.solids import Solid
from dust3r_ros.simulation.textures import Paint

_LIGHT_CELL = 0.09  # m between the points where light is computed
_ROW = 1024  # cv2.remap takes no side over 32767: samples are laid out in rows of this length


@dataclass(frozen=True)
class Thing:
    """A solid, its paint (one for all charts, or one for each), and the name that seeds the paint."""

    name: str
    solid: Solid
    paint: Paint | tuple[Paint, ...]


class Scene:
    """Answers `depth`, which costs no paint, and `radiance` at `density` texels a metre. `lamps`: [L, 3] metres, under the ceiling."""

    def __init__(self, things: Sequence[Thing], density: float, seed: int = 0, lamps: NDArray[np.floating] = LAMP[None]) -> None:
        self.solids = [thing.solid for thing in things]
        self.density = density
        self._things, self._seed, self._lamps = list(things), seed, lamps
        self._corners = np.stack([solid.corners() for solid in self.solids])
        self._inside = np.array([solid.inside for solid in self.solids])
        self._textures: dict[tuple[int, int], list[NDArray[np.float32]]] = {}

    def depth(self, camera: Camera, pose: NDArray[np.float64]) -> NDArray[np.float32]:
        """Depth (H, W) along z in metres at the pixels' centres, for a pinhole camera at `pose` (4x4, camera to world)."""
        x, y = np.meshgrid(np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64))
        depth, _, _ = self._cast(camera, pose, x, y)
        return depth.reshape(camera.height, camera.width).astype(np.float32)

    def radiance(self, camera: Camera, pose: NDArray[np.float64], oversample: int = 2) -> NDArray[np.float32]:
        """Linear light (H, W, 3) that the camera gathers, `oversample` x `oversample` rays a pixel, textures filtered to match."""
        offsets = (np.arange(oversample) + 0.5) / oversample - 0.5
        columns = (np.arange(camera.width)[:, None] + offsets).astype(np.float32).ravel()
        rows = (np.arange(camera.height)[:, None] + offsets).astype(np.float32).ravel()
        x, y = np.meshgrid(columns, rows)
        depth, owner, directions = self._cast(camera, pose, x, y)
        light = np.zeros((x.size, 3), np.float32)
        for index in np.flatnonzero(np.bincount(owner[owner >= 0])):
            rays = np.flatnonzero(owner == index)
            light[rays] = self._shade(int(index), pose, directions[rays], depth[rays], 1 / (camera.fx * oversample))
        return cv2.resize(light.reshape(*x.shape, 3), (camera.width, camera.height), interpolation=cv2.INTER_AREA)

    def _cast(
        self, camera: Camera, pose: NDArray[np.float64], x: NDArray[np.floating], y: NDArray[np.floating]
    ) -> tuple[NDArray[np.floating], NDArray[np.intp], NDArray[np.floating]]:
        """Depth (N,), index of the solid met (N,; -1: none) and world directions (N, 3) of unit depth; x, y: (rows, columns) of pixels."""
        rays = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones_like(x)], axis=-1)
        directions = rays @ pose[:3, :3].T.astype(x.dtype)
        origin = pose[:3, 3].astype(x.dtype)
        depth = np.full(x.shape, np.inf, x.dtype)
        owner = np.full(x.shape, -1, np.intp)
        for index, window in self._windows(camera, pose, x[0], y[:, 0]):
            patch = directions[window]
            reach = self.solids[index].reach(origin, patch.reshape(-1, 3)).reshape(patch.shape[:2])
            nearer = reach < depth[window]
            depth[window][nearer] = reach[nearer]
            owner[window][nearer] = index
        return depth.ravel(), owner.ravel(), directions.reshape(-1, 3)

    def _windows(
        self, camera: Camera, pose: NDArray[np.float64], columns: NDArray[np.floating], rows: NDArray[np.floating]
    ) -> Iterator[tuple[int, tuple[slice, slice]]]:
        """The solids that can be seen at all, and the part of the pixel grid in which."""
        corners = (self._corners - pose[:3, 3]) @ pose[:3, :3]
        z = corners[..., 2]
        everywhere = self._inside | (np.any(z < 0.05, axis=1) & np.any(z > 0, axis=1))
        ahead = np.all(z >= 0.05, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = corners[..., 0] / z * camera.fx + camera.cx, corners[..., 1] / z * camera.fy + camera.cy
        left, right = (np.searchsorted(columns, edge) for edge in (x.min(1) - 1e-3, x.max(1) + 1e-3))
        top, bottom = (np.searchsorted(rows, edge) for edge in (y.min(1) - 1e-3, y.max(1) + 1e-3))
        for index in np.flatnonzero(everywhere | (ahead & (left < right) & (top < bottom))):
            if everywhere[index]:
                yield int(index), (slice(None), slice(None))
            else:
                yield int(index), (slice(int(top[index]), int(bottom[index])), slice(int(left[index]), int(right[index])))

    def _shade(
        self, index: int, pose: NDArray[np.float64], directions: NDArray[np.floating], depth: NDArray[np.floating], spacing: float
    ) -> NDArray[np.float32]:
        solid = self.solids[index]
        points = solid.to_local(pose[:3, 3].astype(np.float32) + directions * depth[:, None])
        chart, u, v = solid.locate(points)
        light = np.empty((len(points), 3), np.float32)
        for face in np.flatnonzero(np.bincount(chart)):
            on = np.flatnonzero(chart == face)
            _, normals = solid.surface(int(face), u[on], v[on])
            across = directions[on] @ solid.rotation.astype(np.float32)
            slant = np.abs(np.einsum("nc,nc->n", across, normals)) / np.linalg.norm(across, axis=1)
            # Half way between the footprint's short and long side: the rays within a pixel take care of the rest.
            footprint = depth[on] * spacing / np.sqrt(np.maximum(slant, 0.05)) * self.density
            light[on] = _sample(self._texture(index, int(face)), solid.charts()[face], u[on], v[on], np.log2(np.maximum(footprint, 1e-3)))
        return light

    def _texture(self, index: int, chart: int) -> list[NDArray[np.float32]]:
        if (index, chart) not in self._textures:
            self._textures[index, chart] = self._bake(self._things[index], chart)
        return self._textures[index, chart]

    def _bake(self, thing: Thing, chart: int) -> list[NDArray[np.float32]]:
        width, height = thing.solid.charts()[chart]
        rng = np.random.default_rng([self._seed, crc32(thing.name.encode()), chart])
        paint = thing.paint[chart] if isinstance(thing.paint, tuple) else thing.paint
        albedo = paint(width, height, self.density, rng)
        rows, columns = max(3, round(height / _LIGHT_CELL)), max(3, round(width / _LIGHT_CELL))
        u, v = np.meshgrid((np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows)
        points, normals = thing.solid.surface(chart, u.ravel(), v.ravel())
        light = irradiance(thing.solid.to_world(points), normals @ thing.solid.rotation.T, self.solids, self._lamps)
        smooth = cv2.resize(light.reshape(rows, columns, 3), (albedo.shape[1], albedo.shape[0]), interpolation=cv2.INTER_CUBIC)
        return _pyramid(albedo * np.maximum(smooth, 0))


def _pyramid(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    levels = [image]
    while min(levels[-1].shape[:2]) >= 8:
        rows, columns = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], ((columns + 1) // 2, (rows + 1) // 2), interpolation=cv2.INTER_AREA))
    return levels


def _sample(
    pyramid: list[NDArray[np.float32]],
    size: tuple[float, float],
    u: NDArray[np.floating],
    v: NDArray[np.floating],
    detail: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Trilinear texture lookup (N, 3) (Williams 1983): between texels and between the two levels around `detail` (log2 of texels a ray)."""
    detail = np.clip(detail, 0, len(pyramid) - 1)
    lower = np.minimum(np.floor(detail).astype(int), max(len(pyramid) - 2, 0))
    light = np.empty((len(u), 3), np.float32)
    for level in np.flatnonzero(np.bincount(lower)):
        on = np.flatnonzero(lower == level)
        fine = _lookup(pyramid[int(level)], u[on] / size[0], v[on] / size[1])
        coarse = _lookup(pyramid[min(int(level) + 1, len(pyramid) - 1)], u[on] / size[0], v[on] / size[1])
        light[on] = fine + (detail[on] - level).astype(np.float32)[:, None] * (coarse - fine)
    return light


def _lookup(texture: NDArray[np.float32], u: NDArray[np.floating], v: NDArray[np.floating]) -> NDArray[np.float32]:
    rows, columns = texture.shape[:2]
    length = -(-len(u) // _ROW) * _ROW
    x, y = np.zeros(length, np.float32), np.zeros(length, np.float32)
    x[: len(u)], y[: len(v)] = u * columns - 0.5, v * rows - 0.5
    found = cv2.remap(texture, x.reshape(-1, _ROW), y.reshape(-1, _ROW), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found.reshape(-1, 3)[: len(u)]
