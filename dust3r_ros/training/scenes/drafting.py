"""Drafting of scenes: many at once, in numpy, solid by solid; each call adds one solid to every scene, or to those where it is present."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.training.scenes.config import SceneError
from dust3r_ros.training.scenes.meshes import to_unit_triangles
from dust3r_ros.training.scenes.solids import BOXES, CYLINDERS, MATERIAL, OPENINGS, PANELS, SPHERES, WALLS, Scenes

Array = NDArray[np.float64]
CAPACITY = {"wall": WALLS, "panel": PANELS - WALLS, "box": BOXES, "sphere": SPHERES, "cylinder": CYLINDERS}
BURIED = np.array([0.0, 0.0, -1e4])  # where solids lie that a scene does not have


@dataclass
class Draft:
    """`count` scenes being built. Vectors are [count, 3] or broadcast to it; angles in radians, lengths in metres."""

    count: int
    rng: np.random.Generator
    heights: Array | None = None
    triangles: Array | None = None
    uneven_material: Array | None = None
    _solids: dict[str, list[tuple[Array, Array, Array, Array, Array]]] = field(default_factory=lambda: {kind: [] for kind in CAPACITY})

    def uniform(self, low: float | Array, high: float | Array) -> Array:
        """[count]"""
        return self.rng.uniform(low, high, self.count)

    def chance(self, probability: float) -> NDArray[np.bool_]:
        return self.rng.random(self.count) < probability

    def box(self, middle: ArrayLike, half: ArrayLike, material: Array, yaw: ArrayLike = 0.0, present: ArrayLike = True) -> None:
        self._add("box", middle, half, about_z(self._each(yaw)), material, present)

    def sphere(self, middle: ArrayLike, half: ArrayLike, material: Array, yaw: ArrayLike = 0.0, present: ArrayLike = True) -> None:
        """A ball, or an ellipsoid where the half extents differ."""
        self._add("sphere", middle, half, about_z(self._each(yaw)), material, present)

    def cylinder(self, middle: ArrayLike, half: ArrayLike, material: Array, present: ArrayLike = True, lying: ArrayLike = False) -> None:
        """Upright, `half` being radius, radius and half the height; or lying along x."""
        rotation = np.where(self._each(lying)[:, None, None].astype(bool), about_y(np.full(self.count, np.pi / 2)), np.eye(3))
        self._add("cylinder", middle, half, rotation, material, present)

    def floor(self, middle: ArrayLike, half_x: ArrayLike, half_y: ArrayLike, material: Array) -> None:
        """A horizontal panel."""
        half = np.stack([self._each(half_x), self._each(half_y), np.ones(self.count)], 1)
        self._add("panel", middle, half, np.broadcast_to(np.eye(3), (self.count, 3, 3)), material, True)

    def wall(self, middle: ArrayLike, half_width: ArrayLike, half_height: ArrayLike, yaw: ArrayLike, material: Array,
             openings: Array | None = None) -> None:  # fmt: skip
        """An upright panel whose x lies along `yaw` and whose y is up. `openings` [count, n, 4]: middle and half extents in metres."""
        half = np.stack([self._each(half_width), self._each(half_height), np.ones(self.count)], 1)
        x = np.stack([np.cos(self._each(yaw)), np.sin(self._each(yaw)), np.zeros(self.count)], 1)
        y = np.broadcast_to([0.0, 0.0, 1.0], x.shape)
        rotation = np.stack([x, y, np.cross(x, y)], 2)
        unit = None if openings is None else openings / half[:, None, [0, 1, 0, 1]]
        self._add("panel" if openings is None else "wall", middle, half, rotation, material, True, unit)

    def ground(self, heights: Array, material: Array) -> None:
        """A height field [count, G, G] instead of a floor; see `height_fields`."""
        self.heights, self.uneven_material = heights, material

    def mesh(self, triangles: Array, material: Array) -> None:
        """A mesh of triangles [count, T, 3, 3]."""
        self.triangles, self.uneven_material = triangles, material

    def _each(self, value: ArrayLike) -> Array:
        return np.broadcast_to(np.asarray(value, np.float64), (self.count,))

    def _add(self, kind: str, middle: ArrayLike, half: ArrayLike, rotation: Array, material: Array, present: ArrayLike,
             openings: Array | None = None) -> None:  # fmt: skip
        there = np.broadcast_to(np.asarray(present, bool), (self.count,))
        middle = np.where(there[:, None], np.broadcast_to(middle, (self.count, 3)), BURIED)
        half = np.where(there[:, None], np.broadcast_to(half, (self.count, 3)), 1e-3)
        holes = np.tile([9.0, 9.0, 1e-3, 1e-3], (self.count, OPENINGS, 1))  # outside of every panel: none
        if openings is not None:
            holes[:, : openings.shape[1]] = openings
        self._solids[kind].append((middle, half, rotation, np.broadcast_to(material, (self.count, MATERIAL)), holes))

    def solids(self) -> tuple[Array, Array, Array, Array]:
        """`to_unit` [count, P, 3, 4], `half` [count, P, 3], `material` [count, P, MATERIAL] and `openings` of the panels."""
        nothing = np.tile([9.0, 9.0, 1e-3, 1e-3], (self.count, OPENINGS, 1))
        empty = (np.broadcast_to(BURIED, (self.count, 3)), np.full((self.count, 3), 1e-3), np.broadcast_to(np.eye(3), (self.count, 3, 3)))
        rows = []
        for kind, capacity in CAPACITY.items():
            given = self._solids[kind]
            if len(given) > capacity:
                raise SceneError(f"a scene has {len(given)} of kind {kind}, but only {capacity} fit: raise the number in solids.py")
            rows += given + [(*empty, np.zeros((self.count, MATERIAL)), nothing)] * (capacity - len(given))
        middle, half, rotation, material, holes = (np.stack(column, 1) for column in zip(*rows, strict=True))
        linear = rotation.swapaxes(-1, -2) / half[..., :, None]
        offset = -np.einsum("spij,spj->spi", linear, middle)
        return np.concatenate([linear, offset[..., None]], -1), half, material, holes[:, :WALLS]


def at(x: Array, y: Array, z: Array) -> Array:
    """[count, 3]"""
    return np.stack([x, y, z], 1)


def about_z(angle: Array) -> Array:
    """Rotations [n, 3, 3] about the vertical."""
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).reshape(-1, 3, 3)


def about_y(angle: Array) -> Array:
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).reshape(-1, 3, 3)


@dataclass(frozen=True)
class Lighting:
    """Lamps and sky of a draft's scenes; see `Scenes`."""

    lamps: Array
    lamp_colour: Array
    lamp_falls: Array
    ambient_up: Array
    ambient_down: Array
    sky: Array
    sky_material: Array  # [count, MATERIAL]


def finished(draft: Draft, light: Lighting) -> Scenes:
    """The draft as tensors on the host."""
    to_unit, half, material, openings = draft.solids()
    uneven = np.zeros_like(light.sky_material) if draft.uneven_material is None else draft.uneven_material
    material = np.concatenate([material, uneven[:, None], light.sky_material[:, None]], 1)
    field = np.zeros((draft.count, 0, 0)) if draft.heights is None else draft.heights
    triangles = np.zeros((draft.count, 0, 3, 4)) if draft.triangles is None else to_unit_triangles(draft.triangles)
    arrays = (
        to_unit,
        half,
        openings,
        material,
        field,
        triangles,
        light.lamps,
        light.lamp_colour,
        light.lamp_falls,
        light.ambient_up,
        light.ambient_down,
        light.sky,
    )
    return Scenes(*(torch.from_numpy(np.ascontiguousarray(value, np.float32)) for value in arrays))
