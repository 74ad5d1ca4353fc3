"""Whether a picture looks as the map says that it must: a check that does not go through the estimator that placed it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, inverse_pose, transform_points
from dust3r_ros.mapping.types import Keyframe

FINE, COARSE = 0.006, 0.06  # of the keyframe's longer side: detail between these two blurs is compared
MIN_OVERLAP = 0.05  # of the keyframe's pixels, or nothing can be said


def likeness(
    keyframe: Keyframe, trusted: NDArray[np.bool_], image: NDArray[np.uint8], camera: Camera, pose: NDArray[np.float64]
) -> float | None:
    """Correlation, -1..1, of the keyframe's picture with what `image` shows where its points fall if `camera` stood at `pose`.

    `trusted` [h, w]: the keyframe's pixels whose depth is used. Normalised cross-correlation of band-passed grey values: 0 for pictures
    that have nothing to do with each other or are wrongly placed; brightness and contrast do not matter. image [H, W, 3] RGB is `camera`'s;
    pose [4, 4] camera to the map's world. None where less than 5 % of the keyframe falls into the image.
    """
    world = transform_points(keyframe.pose, keyframe.camera.rays() * keyframe.depth[..., None].astype(np.float64))
    pixels = camera.project(transform_points(inverse_pose(pose), world))
    inside = trusted & camera.contains(pixels)
    if inside.mean() < MIN_OVERLAP:
        return None
    maps = np.where(inside[..., None], pixels, -1.0).astype(np.float32)
    shrink = max(1.0, max(camera.width, camera.height) / max(keyframe.camera.width, keyframe.camera.height))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if shrink > 1.5:  # the keyframe is small: what it cannot show must not count against it
        grey = cv2.GaussianBlur(grey, (0, 0), 0.4 * shrink)
    seen = cv2.remap(grey, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    a = _detail(cv2.cvtColor(keyframe.image, cv2.COLOR_RGB2GRAY), inside)[inside]
    b = _detail(seen, inside)[inside]
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread > 0 else 0.0


def _detail(grey: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[h, w] grey values between two blurs; pixels outside have no part in either."""
    share = inside.astype(np.float64)
    values = np.where(inside, grey, 0).astype(np.float64)

    def blurred(sigma: float) -> NDArray[np.float64]:
        weight = cv2.GaussianBlur(share, (0, 0), sigma)
        return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma) / np.maximum(weight, 1e-6))

    side = max(grey.shape)
    return blurred(max(0.5, FINE * side)) - blurred(COARSE * side)
