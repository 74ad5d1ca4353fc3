"""Pictures of point clouds and depth, with numpy alone: points as discs that hide what is behind, edges darkened by depth.

Edge shading after Boucheny's eye-dome lighting (2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, pose_matrix
from dust3r_ros.mapping.types import PointCloud

PAPER = (250, 250, 248)  # RGB of the background
PATH_COLOR = (228, 87, 46)
SUPERSAMPLING = 2
EDGE_STRENGTH = 6.0
MAX_DISC = 13  # pixels across, supersampled


@dataclass(frozen=True, eq=False)
class View:
    """Where a picture of the cloud is taken from."""

    name: str
    pose: NDArray[np.float64]  # [4, 4] camera to world


def standard_views(cloud: PointCloud, poses: NDArray[np.float64]) -> list[View]:
    """Along the way, obliquely from above, and from above; for a cloud and the camera poses [N, 4, 4] that made it."""
    points = cloud.points[np.isfinite(cloud.points).all(axis=1)].astype(np.float64)
    middle = poses[len(poses) // 2]
    up = -poses[:, :3, 1].mean(axis=0)
    up /= np.linalg.norm(up)
    forward = poses[:, :3, 2].mean(axis=0)
    forward -= up * (forward @ up)
    forward /= max(float(np.linalg.norm(forward)), 1e-9)
    right = np.cross(forward, up)
    centre = np.median(points, axis=0)
    radius = float(np.quantile(np.linalg.norm(points - centre, axis=1), 0.85))
    behind = middle[:3, 3] - 0.25 * radius * middle[:3, 2] + 0.08 * radius * up
    across = centre + 1.9 * radius * (-0.75 * forward + 0.55 * right + 0.5 * up)
    above = _above(np.concatenate([points[:: max(1, len(points) // 5000)], poses[:, :3, 3]]), up, forward, right)
    return [
        View("along the way", look_at(behind, behind + middle[:3, 2] + 0.05 * -up, up)),
        View("from the side", look_at(across, centre, up)),
        View("from above", look_at(above, above - up + 1e-3 * forward, forward)),
    ]


def _above(points: NDArray[np.float64], *axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """A place above from which nearly all points are in sight. `axes`: up, forward, right."""
    up, forward, right = ((points @ axis) for axis in axes)
    (low_f, high_f), (low_r, high_r) = (np.quantile(side, [0.01, 0.99]) for side in (forward, right))
    height = float(np.quantile(up, 0.9)) + max((high_f - low_f) / 0.72, (high_r - low_r) / 1.08)
    return height * axes[0] + (low_f + high_f) / 2 * axes[1] + (low_r + high_r) / 2 * axes[2]


def look_at(eye: NDArray[np.float64], target: NDArray[np.float64], up: NDArray[np.float64]) -> NDArray[np.float64]:
    """[4, 4] camera to world, OpenCV axes."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return pose_matrix(np.column_stack([right, np.cross(forward, right), forward]), eye)


def render_cloud(
    cloud: PointCloud,
    pose: NDArray[np.float64],
    width: int = 720,
    height: int = 480,
    fov: float = 60.0,
    point_size: float | None = None,
    path: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """[height, width, 3] RGB of the cloud from `pose`. `point_size`: edge of a point in map units, by default from the cloud's density.

    `path`: [N, 3] camera positions, drawn as a line in front of all else.
    """
    camera = Camera.from_fov(width * SUPERSAMPLING, height * SUPERSAMPLING, fov)
    in_view = (cloud.points.astype(np.float64) - pose[:3, 3]) @ pose[:3, :3]
    size = point_size if point_size is not None else _spacing(cloud)
    ahead = in_view[:, 2] > 4 * size
    points, colors = in_view[ahead], cloud.colors[ahead]
    image = np.full((camera.height, camera.width, 3), PAPER, np.uint8)
    depth = np.full((camera.height, camera.width), np.inf)
    if len(points):
        across = np.clip(np.ceil(1.8 * size * camera.fx / points[:, 2]).astype(int), 1, MAX_DISC)
        _splat(points, colors, across, camera, image, depth)
        image = _edges_darkened(image, depth)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if path is not None and len(path) > 1:
        _draw_path(small, (path - pose[:3, 3]) @ pose[:3, :3], Camera.from_fov(width, height, fov))
    return np.asarray(small, np.uint8)


def _splat(
    points: NDArray[np.float64],
    colors: NDArray[np.uint8],
    across: NDArray[np.int_],
    camera: Camera,
    image: NDArray[np.uint8],
    depth: NDArray[np.float64],
) -> None:
    """Discs of `across` pixels, the nearest in front."""
    rows = np.rint(points[:, 1] / points[:, 2] * camera.fy + camera.cy).astype(int)
    columns = np.rint(points[:, 0] / points[:, 2] * camera.fx + camera.cx).astype(int)
    order = np.argsort(-points[:, 2], kind="stable")
    flat_depth, flat_image = depth.reshape(-1), image.reshape(-1, 3)
    for size in np.unique(across):
        these = order[across[order] == size]
        radius = size // 2
        for down in range(-radius, radius + 1):
            for right in range(-radius, radius + 1):
                if right * right + down * down > (radius + 0.5) ** 2:
                    continue
                at_row, at_column = rows[these] + down, columns[these] + right
                inside = (at_row >= 0) & (at_row < camera.height) & (at_column >= 0) & (at_column < camera.width)
                kept = these[inside]
                pixel = at_row[inside] * camera.width + at_column[inside]
                nearer = points[kept, 2] < flat_depth[pixel]
                # Far to near: where two points meet in a pixel the last one written is the nearest.
                flat_depth[pixel[nearer]], flat_image[pixel[nearer]] = points[kept[nearer], 2], colors[kept[nearer]]


def _edges_darkened(image: NDArray[np.uint8], depth: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Darker where the neighbours are nearer."""
    logarithm = np.log(np.where(np.isfinite(depth), depth, 1e9)).astype(np.float32)
    behind = np.zeros_like(logarithm)
    for down, right in ((2, 0), (-2, 0), (0, 2), (0, -2)):
        behind += np.clip(logarithm - np.roll(logarithm, (down, right), (0, 1)), 0, 0.1)
    shade = np.where(np.isfinite(depth), np.exp(-EDGE_STRENGTH * behind / 4), 1.0)
    return np.asarray(image * shade[..., None], np.uint8)


def _draw_path(image: NDArray[np.uint8], path: NDArray[np.float64], camera: Camera) -> None:
    ahead = path[path[:, 2] > 1e-3]
    if len(ahead) > 1:
        pixels = np.clip(np.rint(camera.project(ahead) * 16), -(2**20), 2**20).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(image, [pixels], False, (255, 255, 255), 5, cv2.LINE_AA, 4)
        cv2.polylines(image, [pixels], False, PATH_COLOR, 2, cv2.LINE_AA, 4)


def _spacing(cloud: PointCloud) -> float:
    """Typical distance between neighbours, from a sample."""
    from scipy.spatial import cKDTree

    sample = cloud.points[:: max(1, len(cloud) // 100_000)].astype(np.float64)
    asked = sample[:: max(1, len(sample) // 2000)]
    if len(sample) < 2:
        return 0.01
    distance, _ = cKDTree(sample).query(asked, k=2)
    return float(np.median(np.asarray(distance)[:, 1]))


def depth_picture(depth: NDArray[np.float32], near: float | None = None, far: float | None = None) -> NDArray[np.uint8]:
    """[H, W, 3] RGB of a depth image: near is warm, far is cold, unknown is grey."""
    known = depth > 0
    picture = np.full((*depth.shape, 3), 225, np.uint8)
    if known.any():
        low = float(np.quantile(depth[known], 0.01)) if near is None else near
        high = float(np.quantile(depth[known], 0.99)) if far is None else far
        level = np.clip((high - depth) / max(high - low, 1e-9), 0.02, 0.98)
        colored = cv2.cvtColor(cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
        picture[known] = colored[known]
    return picture


def confidence_picture(confidence: NDArray[np.float32], high: float = 20.0) -> NDArray[np.uint8]:
    """[H, W, 3] RGB of a confidence image on a logarithmic scale from 1 to `high`: dark is unknown, light is sure."""
    level = np.clip(np.log(np.maximum(confidence, 1)) / np.log(high), 0, 1)
    colored = cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_CIVIDIS)
    return np.asarray(cv2.cvtColor(colored, cv2.COLOR_BGR2RGB), np.uint8)
