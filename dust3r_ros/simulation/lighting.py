"""Light on surfaces, computed once: nothing moves and nothing shines but the lamps, so shadows are as fixed as paint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.simulation.solids import Solid

LAMP = np.array([-0.7, -0.5, 2.6], np.float32)  # m, centre of the room's lamp under the ceiling
LAMP_SIZE = 1.1  # m, edge of the square it shines from: soft shadows
LAMP_COLOR = np.array([1.0, 0.93, 0.82], np.float32) * np.float32(7.5)
AMBIENT = np.array([0.24, 0.27, 0.31], np.float32)
LAMP_REACH = 7.0  # m between a lamp and the middle of what it lights: farther lamps of a long corridor add next to nothing
_FADE = 0.9  # m: what is nearer than this takes ambient light away
_SHADOWS, _SKY = 3, 10  # samples along each edge of the lamp; directions of the hemisphere


def irradiance(
    points: NDArray[np.floating], normals: NDArray[np.floating], solids: Sequence[Solid], lamps: NDArray[np.floating] = LAMP[None]
) -> NDArray[np.float32]:
    """Light (N, 3) on surface points (N, 3) of the world with unit normals (N, 3): lamps [L, 3] with soft shadows, and occluded ambient."""
    normals = normals.astype(np.float32)
    start = points.astype(np.float32) + np.float32(2e-3) * normals
    light = np.zeros(len(start), np.float32)
    for lamp in lamps[np.linalg.norm(lamps - start.mean(axis=0), axis=1) < LAMP_REACH].astype(np.float32):
        light += _lamp(lamp, start, normals, solids)
    return LAMP_COLOR * light[:, None] + AMBIENT * _openness(start, normals, solids)[:, None]


def _lamp(
    lamp: NDArray[np.float32], start: NDArray[np.float32], normals: NDArray[np.float32], solids: Sequence[Solid]
) -> NDArray[np.float32]:
    """Lambert's cosine over the squared distance (N,), times the share of the lamp that is seen."""
    steps = ((np.arange(_SHADOWS) + 0.5) / _SHADOWS - 0.5).astype(np.float32) * np.float32(LAMP_SIZE)
    dx, dy = (grid.ravel() for grid in np.meshgrid(steps, steps))
    lamps = lamp + np.stack([dx, dy, np.zeros_like(dx)], axis=1)
    paths = (lamps[:, None] - start).reshape(-1, 3)
    squared = np.einsum("nc,nc->n", paths, paths)
    facing = np.einsum("nc,nc->n", paths, np.tile(normals, (len(lamps), 1))) / np.sqrt(squared)
    lit = np.flatnonzero((facing > 0) & (paths[:, 2] > 0))
    origins = np.tile(start, (len(lamps), 1))
    for solid in _between(solids, start, lamp, LAMP_SIZE):
        lit = lit[solid.reach(origins[lit], paths[lit]) >= 1]
    light = np.zeros(len(paths), np.float32)
    light[lit] = facing[lit] / (0.6 + squared[lit])
    return light.reshape(len(lamps), -1).mean(axis=0)


def _openness(start: NDArray[np.float32], normals: NDArray[np.float32], solids: Sequence[Solid]) -> NDArray[np.float32]:
    """Share of the sky (N,), cosine weighted, that nothing near takes away."""
    across = np.where(np.abs(normals[:, 2:]) > 0.9, np.eye(3, dtype=np.float32)[:1], np.eye(3, dtype=np.float32)[2:])
    across = np.cross(across, normals)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    upward = np.cross(normals, across)
    paths = []
    for k in range(_SKY):  # a golden spiral on the disc, lifted to the hemisphere (Malley's method)
        radius, angle = math.sqrt((k + 0.5) / _SKY), k * 2.399963
        paths.append(math.sqrt(1 - radius**2) * normals + radius * (math.cos(angle) * across + math.sin(angle) * upward))
    rays = (np.concatenate(paths) * _FADE).astype(np.float32)
    origins = np.tile(start, (_SKY, 1))
    free = np.ones(len(rays), np.float32)
    for solid in _between(solids, start, start.mean(axis=0), _FADE):
        free = np.minimum(free, solid.reach(origins, rays))
    return free.reshape(_SKY, -1).mean(axis=0)


def _between(solids: Sequence[Solid], points: NDArray[np.float32], end: NDArray[np.float32], spread: float) -> list[Solid]:
    """The solids that can stand on a way from one of the points to within `spread` of `end`; a room stands in no lamp's way."""
    middle = points.mean(axis=0)
    radius = float(np.linalg.norm(points - middle, axis=1).max()) + spread
    axis = end - middle
    length = float(axis @ axis)
    centres = np.array([solid.centre for solid in solids], np.float32) - middle
    bounds = np.linalg.norm([solid.size for solid in solids], axis=1) / 2
    along = np.clip(centres @ axis / length, 0, 1) if length else np.zeros(len(solids), np.float32)
    near = np.linalg.norm(centres - along[:, None] * axis, axis=1) <= radius + bounds
    return [solid for solid, close in zip(solids, near, strict=True) if close and not (solid.inside and length)]
