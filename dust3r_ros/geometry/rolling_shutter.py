"""Cameras that read their rows one after the other: pictures and pixels as if all rows had been exposed with the middle one.

Only the camera's turning is undone, which needs no depth and is most of what bends a hand-held picture (Ringaby and Forssen, IJCV 2012).

Conventions: `turn` [3] is a rotation vector per second that takes a resting point from the camera's frame to where it lies in it later;
`readout` is the time in seconds from the first row to the last, negative where the last row comes first.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry.camera import Camera

COARSE = 16  # pixels between the places where the warp of a picture is computed
ROUNDS = 2  # of looking where a pixel's row was read: the warp is small against the picture


def turn_between(before: ArrayLike, after: ArrayLike, seconds: float) -> NDArray[np.float64]:
    """[3] the turn of a camera whose pose (4x4, camera to world) was `before`, and `after` so many seconds later."""
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    turned = second[:3, :3].T @ first[:3, :3]
    axis = np.array([turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0], turned[1, 0] - turned[0, 1]])  # as long as twice its sine
    sine, cosine = 0.5 * float(np.sqrt(axis @ axis)), 0.5 * (float(np.trace(turned)) - 1.0)
    if cosine < 0.0:  # more than a quarter of a turn: the general way
        return Rotation.from_matrix(turned).as_rotvec() / seconds
    angle = float(np.arctan2(sine, cosine))
    return axis * (0.5 * (angle / sine if sine > 0.0 else 1.0) / seconds)


def row_time(rows: ArrayLike, height: int) -> NDArray[np.float64]:
    """[...] when rows are read, as a share of the readout: -1/2 the first, 0 the middle, 1/2 the last."""
    return (np.asarray(rows, np.float64) - (height - 1) / 2) / max(height - 1, 1)


def straightened(pixels: ArrayLike, camera: Camera, turn: NDArray[np.float64], readout: float) -> NDArray[np.float64]:
    """[..., 2] pixels of a picture -> where the same points lie in one that is read at once; NaN where the camera has no ray."""
    pixels = np.asarray(pixels, np.float64)
    return camera.project(_turned(camera.unproject(pixels), turn, -readout * row_time(pixels[..., 1], camera.height)))


def straightened_image(image: NDArray[np.uint8], camera: Camera, turn: NDArray[np.float64], readout: float) -> NDArray[np.uint8]:
    """[H, W, 3] as if read at once. What the picture does not show repeats its border."""
    grid = np.stack(np.meshgrid(_coarse(camera.width), _coarse(camera.height)), -1)
    rays, sources = camera.unproject(grid), grid
    for _ in range(ROUNDS):
        sources = camera.project(_turned(rays, turn, readout * row_time(sources[..., 1], camera.height)))
    shift = np.nan_to_num(sources - grid).astype(np.float32)  # a pixel without a ray stays where it is
    columns, rows = np.arange(camera.width, dtype=np.float32), np.arange(camera.height, dtype=np.float32)
    step_x, step_y = grid[0, 1, 0] - grid[0, 0, 0], grid[1, 0, 1] - grid[0, 0, 1]
    at_x = np.broadcast_to((columns / step_x)[None], (camera.height, camera.width)).astype(np.float32)
    at_y = np.broadcast_to((rows / step_y)[:, None], (camera.height, camera.width)).astype(np.float32)
    fine = cv2.remap(shift, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved = cv2.remap(image, columns + fine[..., 0], rows[:, None] + fine[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def _coarse(length: int) -> NDArray[np.float64]:
    return np.linspace(0.0, length - 1.0, max(2, length // COARSE + 1))


def _turned(rays: NDArray[np.float64], turn: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 3] rays after `seconds` [...] of turning, each its own."""
    usable = np.where(np.isfinite(rays), rays, 0.0).reshape(-1, 3)
    turned = Rotation.from_rotvec(seconds.reshape(-1, 1) * turn).apply(usable).reshape(rays.shape)
    return np.where(np.isfinite(rays), turned, np.nan)
