"""One posed RGB-D picture at the size that training wants."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.recipe import RgbdSection
from dust3r_ros.training.rgbd_files import Picture

TUM_CAMERA = (525.0, 525.0, 319.5, 239.5)  # fx, fy, cx, cy of its 640x480 pictures, as registered

LoadedView = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]


def loaded_view(picture: Picture, width: int, height: int, settings: RgbdSection) -> LoadedView:
    """The fields of a `View` without its batch dimension: scaled to cover the size, then cut about the middle; depth to the nearest pixel.

    Raises TrainingError for a file that cannot be read.
    """
    image = _read(picture.image, cv2.IMREAD_COLOR)
    depth = read_depth(picture.depth, settings)
    rows, columns = image.shape[:2]
    if depth.shape != (rows, columns):
        raise TrainingError(f"{picture.depth} is {depth.shape[1]}x{depth.shape[0]}, its picture {columns}x{rows}: register the depth to it")
    scale = max(width / columns, height / rows)
    size = (max(width, round(columns * scale)), max(height, round(rows * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    shrinks = scale < 1
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)[top : top + height, left : left + width]
    near = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST_EXACT)[top : top + height, left : left + width]
    intrinsics = scaled_intrinsics(settings, size[0] / columns, size[1] / rows)
    intrinsics[2:] -= (left, top)
    values = (cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return values.astype(np.float32), near, near > 0, intrinsics.astype(np.float32), picture.pose.astype(np.float32)


def read_depth(path: Path, settings: RgbdSection) -> NDArray[np.float32]:
    """[H, W] metres along z; 0 where unknown or farther than `max_depth`."""
    values = _read(path, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2:
        raise TrainingError(f"{path} has {values.shape[2]} channels: depth pictures are PNG of one channel of 16 bits")
    depth = values.astype(np.float32) / np.float32(settings.depth_scale)
    return np.where(np.isfinite(depth) & (depth > 0) & (depth <= settings.max_depth), depth, np.float32(0))


def scaled_intrinsics(settings: RgbdSection, scale_x: float, scale_y: float) -> NDArray[np.float64]:
    """fx, fy, cx, cy in the pixels of a scaled picture; pixel centres lie at integers."""
    fx, fy, cx, cy = settings.intrinsics or TUM_CAMERA
    return np.array([fx * scale_x, fy * scale_y, (cx + 0.5) * scale_x - 0.5, (cy + 0.5) * scale_y - 0.5])


def _read(path: Path, flags: int) -> NDArray[np.generic]:
    found = cv2.imread(str(path), flags)
    if found is None:
        raise TrainingError(f"{path} cannot be read as a picture: take its line out of the list, or copy it again")
    return np.asarray(found)
