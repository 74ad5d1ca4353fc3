"""Where the true match of a pixel lies."""

from __future__ import annotations

import numpy as np

from dust3r_ros.geometry import Camera, inverse_pose, transform_points
from dust3r_ros.simulation import SimulatedView


def match_errors(pixels_1: np.ndarray, pixels_2: np.ndarray, first: SimulatedView, second: SimulatedView) -> np.ndarray:
    """[N] pixels between what was found in the second view and where the first view's places [N, 2] truly fall in it."""
    columns, rows = np.rint(pixels_1).astype(int).T
    return np.linalg.norm(project(first.camera, pixels_1, first.depth[rows, columns], first, second) - pixels_2, axis=1)


def project(camera: Camera, pixels: np.ndarray, depth: np.ndarray, first: SimulatedView, second: SimulatedView) -> np.ndarray:
    world = transform_points(first.pose, camera.unproject(pixels) * depth[:, None])
    return second.camera.project(transform_points(inverse_pose(second.pose), world))


def pairs_of(matches) -> set[tuple[int, ...]]:  # type: ignore[no-untyped-def]
    return {tuple(row) for row in np.hstack([matches.pixels_1, matches.pixels_2]).astype(int).tolist()}
