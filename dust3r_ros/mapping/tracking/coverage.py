"""How much of a picture shows what its keyframe has not seen: the unique fraction of MASt3R-SLAM (Murai et al., CVPR 2025, section 3.5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, inverse_pose, transform_points
from dust3r_ros.mapping.types import Keyframe

CELLS = (16, 12)  # of the picture, across and down
SAMPLES = 48  # points across the keyframe: a cell has one still where the camera has come three times as near
TRUSTED = 1.5  # confidence from which a pixel counts as seen


class Coverage:
    """Of one keyframe's points, seen from frames near it."""

    def __init__(self, keyframe: Keyframe) -> None:
        camera = keyframe.camera
        step = max(1, camera.width // SAMPLES)
        here = np.ix_(np.arange(step // 2, camera.height, step), np.arange(step // 2, camera.width, step))
        known = (keyframe.depth[here] > 0) & (keyframe.confidence[here] > TRUSTED)
        rows, columns = (np.broadcast_to(at, known.shape)[known] for at in here)
        rays = camera.unproject(np.stack([columns, rows], axis=-1)).astype(np.float32)
        self._points = np.asarray(rays * keyframe.depth[rows, columns][:, None], np.float64)
        self._own = self._covered(camera, np.eye(4))

    def new_share(self, camera: Camera, pose: NDArray[np.float64]) -> float:
        """Of the picture that `camera` takes at `pose` (4x4, to the keyframe's camera): the share without the keyframe's points, 0..1.

        Relative to the keyframe's own picture, of which not everything is known either: 0 at the keyframe.
        """
        return max(0.0, 1.0 - self._covered(camera, pose) / self._own) if self._own else 0.0

    def _covered(self, camera: Camera, pose: NDArray[np.float64]) -> float:
        points = transform_points(inverse_pose(pose), self._points)
        pixels = camera.project(points[points[:, 2] > 0])
        pixels = pixels[np.isfinite(pixels).all(1)]
        x, y = np.floor((pixels.T + 0.5) * ((CELLS[0] / camera.width,), (CELLS[1] / camera.height,)))
        inside = (x >= 0) & (x < CELLS[0]) & (y >= 0) & (y < CELLS[1])
        covered = np.zeros(CELLS, bool)
        covered[x[inside].astype(int), y[inside].astype(int)] = True
        return float(covered.mean())
