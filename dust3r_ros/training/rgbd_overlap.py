"""Which pictures of a sequence see enough, and not too much, of the same: by their depth and poses."""

from __future__ import annotations

import logging

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.recipe import RgbdSection
from dust3r_ros.training.rgbd_files import Picture
from dust3r_ros.training.rgbd_views import read_depth, scaled_intrinsics

log = logging.getLogger(__name__)

COARSE = (32, 24)  # columns and rows of the depth that is compared
AGREES = 0.1  # depths of the same point, relative
OFFSETS = sorted({round(1.4**power) for power in range(24)})  # pictures apart: dense near by, sparse far away


def pairs_by_overlap(pictures: list[Picture], settings: RgbdSection) -> tuple[list[Picture], list[tuple[int, int]]]:
    """Pictures with enough known depth, and pairs of their numbers whose overlap lies in the range asked for."""
    kept, depths, shapes = [], [], []
    for picture in pictures:
        try:
            depth = read_depth(picture.depth, settings)
        except TrainingError as error:
            log.warning("left out: %s", error)
            continue
        if (depth > 0).mean() >= settings.min_depth_share and picture.image.is_file():
            kept.append(picture)
            depths.append(cv2.resize(depth, COARSE, interpolation=cv2.INTER_NEAREST_EXACT))
            shapes.append(depth.shape)
    low, high = settings.overlap
    pairs = []
    for first in range(len(kept)):
        for second in (first + offset for offset in OFFSETS if first + offset < len(kept)):
            cameras = [_camera(shapes[number], settings) for number in (first, second)]
            there = share_seen(depths[first], cameras[0], kept[first].pose, depths[second], cameras[1], kept[second].pose)
            if there >= low:
                back = share_seen(depths[second], cameras[1], kept[second].pose, depths[first], cameras[0], kept[first].pose)
                if low <= min(there, back) <= high:
                    pairs.append((first, second))
    return kept, pairs


def share_seen(
    depth: NDArray[np.float32],  # [H, W], 0 unknown
    camera: NDArray[np.float64],  # fx, fy, cx, cy
    pose: NDArray[np.float64],  # [4, 4] camera to world
    other_depth: NDArray[np.float32],
    other_camera: NDArray[np.float64],
    other_pose: NDArray[np.float64],
) -> float:
    """Share of a view's known points that lie in another view, at the depth that it has there."""
    rows, columns = np.nonzero(depth)
    if not len(rows):
        return 0.0
    z = depth[rows, columns].astype(np.float64)
    points = np.stack([(columns - camera[2]) / camera[0] * z, (rows - camera[3]) / camera[1] * z, z, np.ones_like(z)])
    x, y, z = (np.linalg.solve(other_pose, pose) @ points)[:3]
    ahead = z > 1e-3
    safe = np.where(ahead, z, 1.0)
    u = np.clip(np.rint(x / safe * other_camera[0] + other_camera[2]), -1, other_depth.shape[1]).astype(int)
    v = np.clip(np.rint(y / safe * other_camera[1] + other_camera[3]), -1, other_depth.shape[0]).astype(int)
    inside = ahead & (u >= 0) & (v >= 0) & (u < other_depth.shape[1]) & (v < other_depth.shape[0])
    measured = other_depth[v[inside], u[inside]]
    return float((np.abs(measured - z[inside]) <= AGREES * z[inside]).sum() / len(rows))


def _camera(shape: tuple[int, ...], settings: RgbdSection) -> NDArray[np.float64]:
    return scaled_intrinsics(settings, COARSE[0] / shape[1], COARSE[1] / shape[0])
