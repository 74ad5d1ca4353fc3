"""What a keyframe shows: its points in the world, its depth in the camera's own pixels, and a compact form to remember it by."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, Rectification
from dust3r_ros.mapping.types import Keyframe, PointCloud

STEP = 0.05  # of the depth, between neighbouring pixels
COMPACT_SIDE = 80  # pixels of the longer side of a keyframe that has left the window


def keyframe_cloud(keyframe: Keyframe, min_confidence: float = 1.0) -> PointCloud:
    """The keyframe's known points in the world frame, those of at least `min_confidence` and not at the edge of something nearer."""
    trusted = np.where(keyframe.confidence >= min_confidence, keyframe.depth, np.float32(0))
    chosen = (trusted > 0) & ~_at_edges(trusted)
    camera_points = keyframe.camera.rays()[chosen] * keyframe.depth[chosen][:, None]
    points = camera_points @ keyframe.pose[:3, :3].T.astype(np.float32) + keyframe.pose[:3, 3].astype(np.float32)
    return PointCloud(points.astype(np.float32), keyframe.image[chosen], keyframe.confidence[chosen])


def _at_edges(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[H, W]: pixels with a step in depth beside them. Their depth is a mixture of both sides, and would fly between them in the map."""
    around = np.ones((3, 3), np.uint8)
    farthest = cv2.dilate(depth, around)
    nearest = cv2.erode(np.where(depth > 0, depth, np.float32(1e30)), around, borderValue=1e30)
    return np.asarray(farthest > (1.0 + STEP) * nearest)


def depth_image(keyframe: Keyframe) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth along z (map units, 0: unknown) and confidence (>= 1), both float32 of the source camera's own size and pixels."""
    to_source = Rectification(keyframe.source, keyframe.camera).to_source
    depth = np.asarray(to_source(keyframe.depth, interpolation="nearest"), np.float32)
    confidence = np.asarray(to_source(keyframe.confidence, interpolation="nearest"), np.float32)
    return depth, np.maximum(confidence, 1.0)


def whole(keyframe: Keyframe, image: NDArray[np.uint8], camera: Camera) -> Keyframe:
    """A compact keyframe with its working image [h, w, 3] again, and depth and confidence on the pixels of that image's `camera`.

    Depth is interpolated as its inverse, which is exact on planes; next to a step in depth it is the nearest pixel's.
    """
    own = keyframe.camera
    if (own.width, own.height) == (camera.width, camera.height):
        return replace(keyframe, image=image)
    pixels = own.project(camera.unproject(camera.pixel_grid())).astype(np.float32)
    maps = pixels[..., 0], pixels[..., 1]
    inverse = np.where(keyframe.depth > 0, 1.0 / np.maximum(keyframe.depth, 1e-12), 0.0).astype(np.float32)

    def sampled(values: NDArray[np.float32], how: int) -> NDArray[np.float32]:
        return np.asarray(cv2.remap(values, *maps, how, borderMode=cv2.BORDER_REPLICATE), np.float32)

    nearest = sampled(keyframe.depth, cv2.INTER_NEAREST)
    smooth = 1.0 / np.maximum(sampled(inverse, cv2.INTER_LINEAR), 1e-12)
    stepped = sampled(_at_edges(keyframe.depth).astype(np.float32), cv2.INTER_LINEAR) > 0
    stepped |= sampled((keyframe.depth > 0).astype(np.float32), cv2.INTER_LINEAR) < 1.0
    depth = np.where(stepped, nearest, smooth).astype(np.float32)
    return replace(keyframe, camera=camera, image=image, depth=depth, confidence=sampled(keyframe.confidence, cv2.INTER_NEAREST))


def compact(keyframe: Keyframe) -> Keyframe:
    """The keyframe with picture, depth and confidence picked out on a coarser grid: enough to show it and to find it again."""
    camera = keyframe.camera
    step = max(1, round(max(camera.width, camera.height) / COMPACT_SIDE))
    if step == 1:
        return keyframe
    start = step // 2
    rows, columns = slice(start, None, step), slice(start, None, step)
    depth = keyframe.depth[rows, columns].copy()
    small = replace(
        camera,
        width=depth.shape[1],
        height=depth.shape[0],
        fx=camera.fx / step,
        fy=camera.fy / step,
        cx=(camera.cx - start) / step,
        cy=(camera.cy - start) / step,
    )
    image, confidence = keyframe.image[rows, columns].copy(), keyframe.confidence[rows, columns].copy()
    return replace(keyframe, camera=small, image=image, depth=depth, confidence=confidence)
