"""A frame placed by one pair with its keyframe: the pair brought to the keyframe's scale, the frame's pose by PnP on the pair's points.

What the pair says of the keyframe's own depth comes with it, on the keyframe's scale. A pair that knows little, tells of another depth than
the keyframe's or puts the frame where few of its points agree is not believed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Camera, solve_pnp
from dust3r_ros.mapping.tracking.odometry_covariance import pnp_covariance
from dust3r_ros.mapping.tracking.tracker import TrackedPose
from dust3r_ros.mapping.types import Keyframe

TRUSTED = 1.5  # a confidence from which a pixel counts as seen
MIN_KNOWN = 0.05  # share of the keyframe's pixels, and of the frame's, that the pair must know
SAME_DEPTH = 0.1  # log: within it the pair and the keyframe tell the same of a pixel
MIN_SAME = 0.6  # share of the pixels of which they must
SAMPLES = 5000  # pixels that the scale is found from
MAX_POINTS = 600  # that the pose is found from
THRESHOLD = 0.006  # of the picture's width, in pixels; at least 1: an error below it agrees with a pose
MIN_INLIERS = 0.5  # share of the points that must agree with the pose

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FramePair:
    """What a pair (keyframe, frame) says, on the keyframe's scale."""

    tracked: TrackedPose  # the frame's pose to the keyframe; its covariance is that of points that err each on its own
    distance: float  # of the points that agree, from the frame: their median, map units
    depth: NDArray[np.float32]  # [h, w] of the keyframe along z, 0 where the pair or the keyframe knows nothing
    confidence: NDArray[np.float32]  # [h, w] >= 1


def frame_by_pair(
    keyframe: Keyframe, prediction: PairPrediction, cameras: tuple[Camera, Camera], guess: Array | None = None
) -> FramePair | None:
    """The frame by its pair; None if the pair is not to be believed.

    `cameras`: of the pair's two working images, the keyframe's first. `guess`: the frame's pose [4, 4] to the keyframe, where it is known
    about.
    """
    own, sure = prediction.points_i.cpu().numpy(), prediction.confidence_i.cpu().numpy()
    if keyframe.depth.shape != sure.shape:  # it has left the window
        return None
    fitted = _on_scale_of(keyframe, own[..., 2], sure)
    if fitted is None:
        return None
    scale, depth = fitted
    placed = _pose(prediction, scale, _as_aligned(cameras, keyframe), guess)
    return None if placed is None else FramePair(*placed, depth, sure)


def _on_scale_of(keyframe: Keyframe, own: NDArray[np.float32], sure: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]] | None:
    """Map units for one of the pair's, and the pair's depth of the keyframe in them: robust, weighted by the logarithm of the confidence.

    The median of the logarithms of ratios, then the mean of those near it.
    """
    both = (keyframe.depth > 0) & (keyframe.confidence >= TRUSTED) & (sure >= TRUSTED) & np.isfinite(own) & (own > 0)
    known = np.flatnonzero(both)
    if len(known) < max(MIN_KNOWN * both.size, 3):
        return None
    some = known[:: max(1, len(known) // SAMPLES)]
    ratio = np.log(keyframe.depth.reshape(-1)[some] / own.reshape(-1)[some])
    weight = np.log(sure.reshape(-1)[some])
    order = np.argsort(ratio)
    summed = np.cumsum(weight[order])
    middle = float(ratio[order][np.searchsorted(summed, summed[-1] / 2)])
    near = np.abs(ratio - middle) <= SAME_DEPTH
    if near.mean() < MIN_SAME:
        return None
    scale = float(np.exp(np.average(ratio[near], weights=weight[near])))
    return scale, np.where(both, np.float32(scale) * own, np.float32(0))


def _as_aligned(cameras: tuple[Camera, Camera], keyframe: Keyframe) -> Camera:
    """The frame's working camera; where nobody measured it, with the focal length that the alignment has found."""
    of_keyframe, of_frame = cameras
    if not of_frame.assumed:
        return of_frame
    longer = keyframe.camera.fx / of_keyframe.fx
    return replace(of_frame, fx=of_frame.fx * longer, fy=of_frame.fy * longer)


def _pose(prediction: PairPrediction, scale: float, camera: Camera, guess: Array | None) -> tuple[TrackedPose, float] | None:
    """And how far away the points are."""
    points, sure = prediction.points_j.cpu().numpy(), prediction.confidence_j.cpu().numpy()
    known = np.flatnonzero((sure >= TRUSTED) & np.isfinite(points).all(-1))
    if len(known) < MIN_KNOWN * sure.size:
        return None
    some = known[np.linspace(0, len(known) - 1, min(len(known), MAX_POINTS)).astype(np.int64)]
    there = scale * points.reshape(-1, 3)[some].astype(np.float64)
    pixels = np.stack([some % sure.shape[1], some // sure.shape[1]], -1).astype(np.float64)
    found = solve_pnp(there, pixels, camera, max(1.0, THRESHOLD * camera.width), guess)
    if found is None or float(found.inliers.mean()) < MIN_INLIERS:
        return None
    share, agree = float(found.inliers.mean()), there[found.inliers]
    covariance = pnp_covariance(agree, camera, found.pose, found.error_px, share)
    return TrackedPose(found.pose, share, covariance), float(np.median(np.linalg.norm(agree - found.pose[:3, 3], axis=1)))
