"""What the flow estimator knows of one image: grey values, texture, a grid of anchor points, and what was found about it later."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.dense import DepthMap, Flow
from dust3r_ros.geometry import Camera

TENSOR_WINDOW = 9  # pixels, the structure tensor's averaging window
ANCHOR_STEP = 16  # pixels between the points of the bundle adjustment at a working image 320 pixels long
ANCHOR_MARGIN = 4  # pixels: flow near the border is extrapolated
MIN_TEXTURE = 6.0  # smaller eigenvalue of the structure tensor (grey levels squared) under which a point is no anchor
ORB_FEATURES = 800


@dataclass(frozen=True, eq=False)
class Solved:
    """Where the last joint solution of a window left this view: the warm start of the next one."""

    chain: int  # solutions with the same number share one scale and one world frame
    pose: NDArray[np.float64]  # [4, 4] world to camera
    anchor_inverse_depth: NDArray[np.float64]  # [N], 0 where unknown


@dataclass(frozen=True, eq=False)
class Dense:
    """The view's depth and the solution it was computed from."""

    map: DepthMap
    relative: dict[bytes, NDArray[np.float64]]  # [4, 4] neighbour from view, by the neighbour's digest
    anchor_inverse_depth: NDArray[np.float64]  # [N], 0 where unknown


@dataclass(eq=False)
class View:
    """One working image. `flows`, `solved` and `dense` are filled in later and live as long as the keyframe does."""

    camera: Camera
    gray: NDArray[np.uint8]  # [h, w]
    digest: bytes  # names the image and its camera by content: the key of every cache
    tensor: NDArray[np.float32]  # [3, h, w] structure tensor xx, xy, yy in grey levels squared, mean over the window
    rays: NDArray[np.float32]  # [h, w, 3], z = 1
    anchors: NDArray[np.float64]  # [N, 2] pixels
    flows: dict[bytes, Flow] = field(default_factory=dict)  # by the other view's digest
    solved: Solved | None = None
    dense: Dense | None = None

    @cached_property
    def orb(self) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """ORB corners [K, 2] and their descriptors [K, 32] (None where the image has no corner)."""
        corners, descriptors = cv2.ORB.create(ORB_FEATURES).detectAndCompute(self.gray, None)
        return np.asarray(cv2.KeyPoint.convert(corners), np.float32).reshape(-1, 2), descriptors

    @property
    def focal(self) -> float:
        """Pixels, the mean of both axes: turns angles near the axis into pixels."""
        return (self.camera.fx + self.camera.fy) / 2

    @property
    def anchor_index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column indices of the anchors."""
        columns, rows = self.anchors.astype(np.int64).T
        return rows, columns

    @property
    def anchor_rays(self) -> NDArray[np.float64]:
        """[N, 3], z = 1."""
        return self.rays[self.anchor_index].astype(np.float64)


def view_of(image: NDArray[np.uint8], camera: Camera) -> View:
    """Prepare a working image [h, w, 3] RGB of a pinhole camera."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    tensor = structure_tensor(gray)
    digest = hashlib.blake2b(image.tobytes() + repr(camera).encode(), digest_size=16).digest()
    return View(camera, gray, digest, tensor, _rays(camera), anchor_points(tensor, max(gray.shape) * ANCHOR_STEP / 320))


@lru_cache(maxsize=4)
def _rays(camera: Camera) -> NDArray[np.float32]:
    """Shared by all views of a camera; not to be written to."""
    rays = camera.rays()
    rays.flags.writeable = False
    return rays


def structure_tensor(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[3, h, w]: products xx, xy, yy of the grey gradient (levels per pixel), averaged over 9x9 pixels."""
    smooth = gray.astype(np.float32)
    gx = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32)
    gy = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32)
    window = (TENSOR_WINDOW, TENSOR_WINDOW)
    return np.stack([cv2.boxFilter(product, -1, window) for product in (gx * gx, gx * gy, gy * gy)])


def smaller_eigenvalue(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """[h, w]: texture in the direction that has least of it (Shi and Tomasi 1994)."""
    xx, xy, yy = tensor
    return (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)


def anchor_points(tensor: NDArray[np.float32], step: float) -> NDArray[np.float64]:
    """The best textured pixel of each cell of a grid, [N, 2] as (x, y); cells without texture give none."""
    texture = smaller_eigenvalue(tensor)
    height, width = texture.shape
    margin = min(ANCHOR_MARGIN, (min(height, width) - 1) // 2)
    rows = np.linspace(margin, height - margin, max(2, round(height / step) + 1)).astype(int)
    columns = np.linspace(margin, width - margin, max(2, round(width / step) + 1)).astype(int)
    found = []
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            cell = texture[top:bottom, left:right]
            if cell.size == 0:
                continue
            best = int(np.argmax(cell))
            if cell.flat[best] >= MIN_TEXTURE:
                found.append((left + best % cell.shape[1], top + best // cell.shape[1]))
    return np.array(found, np.float64).reshape(-1, 2)
