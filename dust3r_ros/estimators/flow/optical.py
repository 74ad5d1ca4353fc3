"""Dense optical flow between two views, both ways, with the forward-backward check."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.dense import Flow
from dust3r_ros.estimators.flow.view import View

PATCH_STRIDE = 4
DESCENT_ITERATIONS = 16
VARIATIONAL_ITERATIONS = 5
MIN_SIDE = 32  # pixels: under this the pyramid of the flow has no level
WARP_SHARE = 0.03  # median motion of the corners, as a share of the width, from which the images are aligned before the flow
WARP_INLIERS = 20
WARP_THRESHOLD = 6.0  # pixels
UNKNOWN = 1e6  # forward-backward error of a pixel that leaves the other image


def match(first: View, second: View) -> tuple[Flow, Flow]:
    """Dense flow both ways: DIS (Kroeger et al., ECCV 2016), after aligning the images where they moved far."""
    if min(*first.gray.shape, *second.gray.shape) < MIN_SIDE:
        return unknown(first), unknown(second)
    warp = coarse_alignment(first, second)
    forth = _dense(first, second, warp)
    back = _dense(second, first, np.asarray(np.linalg.inv(warp), np.float64))
    return (
        Flow(*forth, error=_disagreement(forth, back, second)),
        Flow(*back, error=_disagreement(back, forth, first)),
    )


def unknown(view: View) -> Flow:
    """The flow of a view of which no pixel was found again."""
    height, width = view.gray.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return Flow(x, y, np.full((height, width), UNKNOWN, np.float32))


def coarse_alignment(first: View, second: View) -> NDArray[np.float64]:
    """A homography [3, 3] from pixels of `first` to pixels of `second`.

    Without large motion (or without enough corners to see it) it only accounts for different intrinsics: the identity for one camera.
    """
    same = np.eye(3) if first.camera == second.camera else second.camera.matrix @ np.linalg.inv(first.camera.matrix)
    corners_1, descriptors_1 = first.orb
    corners_2, descriptors_2 = second.orb
    if descriptors_1 is None or descriptors_2 is None:
        return same
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(descriptors_1, descriptors_2)
    if len(matches) < WARP_INLIERS:
        return same
    source = corners_1[[m.queryIdx for m in matches]]
    target = corners_2[[m.trainIdx for m in matches]]
    found, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, WARP_THRESHOLD, maxIters=500)
    if found is None or np.count_nonzero(inliers) < WARP_INLIERS or not _sensible(found, first):
        return same
    kept = inliers.ravel() > 0
    still = cv2.perspectiveTransform(source[kept][None], same)[0]
    moved = np.median(np.linalg.norm(target[kept] - still, axis=1))
    return found if moved > WARP_SHARE * first.camera.width else same


def _sensible(homography: NDArray[np.float64], view: View) -> bool:
    """Whether the homography keeps the image's corners in front, in order, and at between a third and three times the area."""
    height, width = view.gray.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float) @ homography.T
    if np.any(corners[:, 2] * corners[0, 2] <= 0) or abs(np.linalg.det(homography)) < 1e-9:
        return False
    x, y = (corners[:, :2] / corners[:, 2:]).T
    area = np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2
    return width * height / 3 < area < width * height * 3


def _dense(first: View, second: View, warp: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixel coordinates in `second` of every pixel of `first`, by DIS on `second` warped onto `first`."""
    height, width = first.gray.shape
    plain = first.gray.shape == second.gray.shape and np.array_equal(warp, np.eye(3))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    other = second.gray if plain else cv2.warpPerspective(second.gray, warp, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    dis.setPatchStride(PATCH_STRIDE)
    dis.setGradientDescentIterations(DESCENT_ITERATIONS)
    dis.setVariationalRefinementIterations(VARIATIONAL_ITERATIONS)
    flow = dis.calc(first.gray, other, None)
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    if plain:
        return x, y
    h = warp.astype(np.float32)
    depth = h[2, 0] * x + h[2, 1] * y + h[2, 2]
    depth = np.where(np.abs(depth) < 1e-6, np.float32(1e-6), depth)
    return (h[0, 0] * x + h[0, 1] * y + h[0, 2]) / depth, (h[1, 0] * x + h[1, 1] * y + h[1, 2]) / depth


def _disagreement(
    forth: tuple[NDArray[np.float32], NDArray[np.float32]], back: tuple[NDArray[np.float32], NDArray[np.float32]], other: View
) -> NDArray[np.float32]:
    """Distance in pixels between a pixel and where the way forth and back leads it."""
    x, y = forth
    height, width = x.shape
    outside = (cv2.BORDER_CONSTANT, UNKNOWN)
    home_x = cv2.remap(back[0], x, y, cv2.INTER_LINEAR, borderMode=outside[0], borderValue=outside[1])
    home_y = cv2.remap(back[1], x, y, cv2.INTER_LINEAR, borderMode=outside[0], borderValue=outside[1])
    home_x -= np.arange(width, dtype=np.float32)
    home_y -= np.arange(height, dtype=np.float32)[:, None]
    error = np.sqrt(home_x * home_x + home_y * home_y)  # cv2.magnitude rounds by the memory's alignment: not the same twice
    limit_y, limit_x = other.gray.shape
    seen = (x >= 0) & (y >= 0) & (x <= limit_x - 1) & (y <= limit_y - 1) & np.isfinite(error)
    error[~seen] = UNKNOWN
    return error
