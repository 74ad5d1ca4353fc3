"""How high a camera stands above the ground that it sees: the ground plane by RANSAC (Fischler and Bolles, 1981)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POINTS, HYPOTHESES = 1000, 200
MAX_TILT = math.radians(10.0)  # of the ground against what is said to be up: slopes, a camera mounted a little askew
THICKNESS = 0.02  # of the height: points this near lie on the plane
BELOW = 0.06  # of the height: what is farther below is under the ground
MIN_SHARE, MAX_BELOW = 0.08, 0.03  # of all points: on the plane at least, under it at most


@dataclass(frozen=True, eq=False)
class GroundPlane:
    """The plane x . normal = -height in the camera's frame."""

    height: float  # of the camera above it, units of the points
    normal: Array  # [3] unit length, up
    share: float  # of the points that lie on it
    uncertainty: float  # one standard deviation of the height, as a share of it


def up_of_pitch(pitch: float) -> Array:
    """[3] up in the frame of a camera (OpenCV axes) that is not rolled and looks down by `pitch` radians."""
    return np.array([0.0, -math.cos(pitch), -math.sin(pitch)])


def ground_plane(seen: NDArray[np.floating], up: Array, seed: int = 0) -> GroundPlane | None:
    """The lowest large plane under the camera; None if there is none that is level, well covered, and has nothing below it.

    seen [N, 3]: points in the camera's frame; up [3] in that frame, of any length. The same seed gives the same plane.
    """
    rng = np.random.default_rng(seed)
    points: Array = np.asarray(seen, np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) > POINTS:
        points = points[rng.choice(len(points), POINTS, replace=False)]
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    low = points[points @ up < 0]  # under the camera's own level
    if len(low) < max(3, MIN_SHARE * len(points)):
        return None
    corners = low[rng.integers(0, len(low), (HYPOTHESES, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    normals = normals / np.maximum(length, 1e-300)[:, None]
    normals *= np.where(normals @ up < 0, -1.0, 1.0)[:, None]
    heights = -np.einsum("nc,nc->n", normals, corners[:, 0])
    usable = (length > 0) & (normals @ up > math.cos(MAX_TILT)) & (heights > 0)
    normals, heights = normals[usable], heights[usable]
    if not len(heights):
        return None
    above = points @ normals.T + heights  # [N, M]
    on = (np.abs(above) < THICKNESS * heights).sum(axis=0)
    under = (above < -BELOW * heights).sum(axis=0)
    score = np.where(under <= MAX_BELOW * len(points), on, 0)
    best = int(np.argmax(score))
    if score[best] < MIN_SHARE * len(points):
        return None
    return _refined(points, normals[best], float(heights[best]), up)


def _refined(points: Array, normal: Array, height: float, up: Array) -> GroundPlane | None:
    """Least squares over the plane's own points, three times over."""
    for _ in range(3):
        on = np.abs(points @ normal + height) < THICKNESS * height
        if int(on.sum()) < 3:
            return None
        middle = points[on].mean(axis=0)
        normal = np.linalg.svd(points[on] - middle, full_matrices=False)[2][2]
        normal = normal if normal @ up > 0 else -normal
        height = -float(normal @ middle)
        if height <= 0 or normal @ up < math.cos(MAX_TILT):
            return None
    off = (points @ normal + height)[on]
    # The plane's points lie ahead, the height is that under the camera: an error of the tilt counts with the distance.
    reach = float(np.median(np.linalg.norm(points[on] - normal * (points[on] @ normal)[:, None], axis=1))) / height
    spread = float(np.sqrt((off**2).mean())) / height
    uncertainty = spread * (1.0 + reach) / math.sqrt(min(int(on.sum()), 100))
    return GroundPlane(height, normal, float(on.mean()), uncertainty)
