"""Which keyframes see which points of a map: tracks, as programs that start from a sparse model want them.

A keyframe sees a point if the point falls on one of its pixels and the keyframe's own depth there says the same. The observation is that
pixel; how far the point's projection lies from it is its reprojection error, which is large where a keyframe is only remembered as a
small picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import inverse_pose, transform_points
from dust3r_ros.mapping.types import Keyframe

MAX_TRACKED = 50_000  # points of a map that get tracks, evenly chosen
SAME_DEPTH = 0.03  # share of the depth between a point and what the keyframe has there
MIN_CONFIDENCE = 1.5  # of the keyframe's depth
FEWEST = 2  # keyframes that see a point


@dataclass(frozen=True, eq=False)
class Observations:
    """[M] each, by keyframe: which point, which keyframe (its place in the sequence), where, and how far off."""

    point: NDArray[np.int64]
    keyframe: NDArray[np.int64]
    pixel: NDArray[np.float64]  # [M, 2] of the camera that took the picture, pixel centres at whole numbers
    error: NDArray[np.float64]  # pixels

    def __len__(self) -> int:
        return len(self.point)


def observations(points: NDArray[np.floating], keyframes: Sequence[Keyframe]) -> Observations:
    """Of the points [N, 3] (world) that at least two keyframes see; a pixel sees one point, the one that falls nearest to its middle."""
    chosen = np.arange(len(points))
    if len(chosen) > MAX_TRACKED:
        chosen = np.unique(np.linspace(0, len(points) - 1, MAX_TRACKED).astype(np.int64))
    places = np.asarray(points, np.float64)[chosen]
    found = [_seen_by(keyframe, places) for keyframe in keyframes]
    point = np.concatenate([np.zeros(0, np.int64), *(one[0] for one in found)])
    keyframe = np.repeat(np.arange(len(keyframes)), [len(one[0]) for one in found])
    pixel = np.concatenate([np.zeros((0, 2)), *(one[1] for one in found)])
    error = np.concatenate([np.zeros(0), *(one[2] for one in found)])
    kept = np.bincount(point, minlength=len(places))[point] >= FEWEST
    return Observations(chosen[point[kept]], keyframe[kept], pixel[kept], error[kept])


def _seen_by(keyframe: Keyframe, places: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows of the points that a keyframe sees, the pixels that see them [K, 2], and the errors [K]."""
    camera, source = keyframe.camera, keyframe.source
    own = transform_points(inverse_pose(keyframe.pose), places)
    rows = np.flatnonzero(own[:, 2] > 0)
    at = np.rint(np.nan_to_num(camera.project(own[rows]), nan=-1e6).clip(-1e6, 1e6)).astype(np.int64)
    inside = ((at >= 0) & (at < (camera.width, camera.height))).all(1)
    rows, at = rows[inside], at[inside]
    depth, confidence = keyframe.depth[at[:, 1], at[:, 0]], keyframe.confidence[at[:, 1], at[:, 0]]
    same = (depth > 0) & (confidence >= MIN_CONFIDENCE) & (np.abs(own[rows, 2] - depth) < SAME_DEPTH * depth)
    rows, at = rows[same], at[same]
    pixel = source.project(camera.unproject(at.astype(np.float64)))
    error = np.linalg.norm(source.project(own[rows]) - pixel, axis=1)
    usable = np.isfinite(error) & source.contains(np.nan_to_num(pixel, nan=-1e6))
    rows, at, pixel, error = rows[usable], at[usable], pixel[usable], error[usable]
    nearest = np.argsort(error, kind="stable")
    _, first = np.unique((at[:, 1] * camera.width + at[:, 0])[nearest], return_index=True)
    best = np.sort(nearest[first])
    return rows[best], pixel[best], error[best]
