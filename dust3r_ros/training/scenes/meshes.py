"""Meshes from a folder, brought to few triangles and unit size, to be put into scenes.

Every ray of a scene meets every one of its triangles: at 128 triangles a view with a mesh costs about four times one without.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.training.scenes.config import SceneError

SUFFIXES = {".obj", ".glb", ".gltf", ".ply", ".stl", ".off"}
MOST = 256  # meshes that are kept

log = logging.getLogger(__name__)


def load_meshes(folder: Path, triangles: int) -> NDArray[np.float64]:
    """Triangles [M, `triangles`, 3, 3] of the folder's meshes: middle at x = y = 0, standing on z = 0, the longest edge 1, z up.

    Meshes of more triangles are simplified by clustering their corners; fewer are filled up with triangles of no size. Files say y up where
    their format does (GLB, OBJ). Raises SceneError where no mesh can be read.
    """
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)[:MOST]
    found = [mesh for mesh in (_read(path, triangles) for path in files) if mesh is not None]
    if not found:
        raise SceneError(f"meshes is {folder}, where no mesh ({', '.join(sorted(SUFFIXES))}) can be read: give a folder of meshes, or none")
    return np.stack(found)


def _read(path: Path, most: int) -> NDArray[np.float64] | None:
    import trimesh

    try:
        mesh: Any = trimesh.load(path, force="mesh")
        corners = np.asarray(mesh.triangles, np.float64)
    except Exception as error:  # a reader of many formats raises whatever it likes; the file is named and left out
        log.warning("%s cannot be read as a mesh (%s): left out", path, error)
        return None
    if not len(corners) or not np.isfinite(corners).all() or np.ptp(corners, axis=(0, 1)).max() <= 0:
        log.warning("%s holds no triangles with a size: left out", path)
        return None
    if path.suffix.lower() in {".obj", ".glb", ".gltf"}:
        corners = corners[..., [0, 2, 1]] * [1, -1, 1]
    corners = _simplified(corners, most)
    low, high = corners.min((0, 1)), corners.max((0, 1))
    corners = (corners - [*(0.5 * (low + high))[:2], low[2]]) / (high - low).max()
    return np.concatenate([corners, np.repeat(corners[-1:, :1], 3, 1).repeat(most - len(corners), 0)])


def _simplified(corners: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """At most `most` triangles: corners of one cell become their mean, with cells as small as that allows (Rossignac and Borrel, 1993)."""
    size = np.ptp(corners, axis=(0, 1)).max()
    cells = 64
    result = corners
    while len(result) > most and cells > 1:
        keys = np.floor((corners.reshape(-1, 3) - corners.min((0, 1))) / size * cells).astype(np.int64)
        _, cluster = np.unique(keys, axis=0, return_inverse=True)
        cluster = cluster.reshape(-1)
        sums = np.stack([np.bincount(cluster, corners.reshape(-1, 3)[:, axis]) for axis in range(3)], 1)
        faces = cluster.reshape(-1, 3)
        whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
        _, first = np.unique(np.sort(faces[whole], 1), axis=0, return_index=True)
        result = (sums / np.bincount(cluster)[:, None])[faces[whole][first]]
        cells = int(cells * 0.85)
    return result[:most]


def to_unit_triangles(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maps [..., 3, 4] of triangles [..., 3, 3] to the one with corners 0, x and y (Baldwin and Weber, 2016); of no size: to nowhere."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=-1, keepdims=True)
    there = area[..., 0] > 1e-12
    basis = np.stack([b - a, c - a, normal / np.maximum(area, 1e-12)], -1)
    basis = np.where(there[..., None, None], basis, np.eye(3))
    linear = np.linalg.inv(basis)
    offset = -np.einsum("...ij,...j->...i", linear, np.where(there[..., None], a, [0.0, 0.0, -1e4]))
    return np.concatenate([linear, offset[..., None]], -1)
