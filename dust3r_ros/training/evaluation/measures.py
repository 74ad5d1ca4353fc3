"""How far a pair's prediction is from the truth: numbers in, numbers out.

Every measure is over the pixels whose truth is known. A pixel without an estimate (confidence 1, or not finite) is an error, not a gap: its
point counts as the camera's own centre, its depth as the view's median, which is what somebody who sees nothing would say. So an estimator
gains nothing by saying less, and `coverage` says how much it said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.io.evaluation import depth_error
from dust3r_ros.matching.relative_pose import MIN_BASELINE, pose_difference

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MISSED = 180.0  # degrees: the error of a pose that is not determined
FRACTIONS = 100  # points of a sparsification curve
MIN_RANKED = 100  # pixels below which a confidence's order says nothing
MIN_ERROR = 1e-6  # of the scene's size: keeps the logarithm of a perfect point finite


@dataclass(frozen=True)
class DepthScore:
    """Depth along z after one scale, the median ratio over the pixels with an estimate (Eigen et al., NIPS 2014)."""

    abs_rel: float  # mean of |estimate - truth| / truth; the estimate is the true median where there is none
    within_25_percent: float  # share with max(estimate / truth, truth / estimate) < 1.25, in the same way
    abs_rel_estimated: float | None  # the first over the pixels with an estimate alone; None: there are none
    coverage: float  # share with an estimate


@dataclass(frozen=True)
class PoseScore:
    """Camera 2 in camera 1's frame. 180 degrees where it was not determined."""

    rotation_degrees: float
    translation_degrees: float | None  # between the directions; None: the true cameras stand on one spot, there is none


@dataclass(frozen=True)
class ConfidenceScore:
    """How well the confidence orders the errors, whatever its scale."""

    ause: float  # area between the sparsification curve and the best possible one; 0: as good as knowing the errors
    correlation: float  # Pearson's, of log confidence with log error; -1: as good as it gets


def normalised_errors(points: Array, truth: Array, estimated: Mask) -> Array:
    """|X / z - X_true / z_true| of N points whose truth is known, both views of a pair together, in camera 1's frame: [N].

    Wang et al., DUSt3R, CVPR 2024, eq. 2 and 3: z and z_true are the mean distances from camera 1, here over the points `estimated` [N]
    (all, where there are none). points, truth: [N, 3].
    """
    measured = estimated if estimated.any() else np.ones(len(truth), bool)
    distance = np.linalg.norm(truth[measured], axis=1).mean()
    found = np.zeros_like(truth)
    size = np.linalg.norm(points[estimated], axis=1).mean() if estimated.any() else 0.0
    if size > 0:
        found[estimated] = points[estimated] / size
    return np.asarray(np.linalg.norm(found - truth / distance, axis=1))


def depth_score(depth: Array, truth: Array, estimated: Mask) -> DepthScore:
    """Depths [N] of the pixels whose true depth, above 0, is known. An estimate that is not above 0 is none."""
    given = np.where(estimated & np.isfinite(depth) & (depth > 0), depth, 0.0)
    blind = np.full_like(truth, np.median(truth))
    if not (given > 0).any():
        return DepthScore(*_errors(blind / truth), None, 0.0)
    error = depth_error(given.astype(np.float32), truth.astype(np.float32))
    filled = np.where(given > 0, given * error.scale, blind)
    return DepthScore(*_errors(filled / truth), error.abs_rel, error.coverage)


def _errors(ratio: Array) -> tuple[float, float]:
    """Mean relative error, and the share within 25 per cent."""
    return float(np.abs(ratio - 1).mean()), float((np.maximum(ratio, 1 / ratio) < 1.25).mean())


def pose_score(pose: Array | None, truth: Array, distance: float) -> PoseScore:
    """`pose`, `truth`: [4, 4] camera 2 to camera 1, each on a scale of its own; None: not determined. `distance`: the true points' median.

    A true translation under 0.5 % of the distance has no direction worth the name, and a zero estimated one misses the direction.
    """
    moves = bool(np.linalg.norm(truth[:3, 3]) > MIN_BASELINE * distance)
    turned, aside = (MISSED, None) if pose is None else pose_difference(pose, truth)
    return PoseScore(turned, (MISSED if aside is None else aside) if moves else None)


def confidence_score(confidence: Array, errors: Array) -> ConfidenceScore | None:
    """Of N pixels with an estimate and their normalised errors. None where there are under 100, or where all errors are 0.

    Ilg et al., ECCV 2018, section 4.1: take away the least confident pixels, a growing share of them; the mean error of the rest, over
    that of all, is the sparsification curve. Equally confident pixels count as their mean: a confidence that says nothing has a flat curve.
    """
    if len(errors) < MIN_RANKED or not errors.mean() > 0:
        return None
    by_confidence = _sparsified(confidence, errors)
    by_error = _sparsified(-errors, errors)
    logs = np.log(confidence), np.log(np.maximum(errors, MIN_ERROR))
    varied = all(np.ptp(side) > 0 for side in logs)
    correlation = float(np.corrcoef(*logs)[0, 1]) if varied else 0.0
    return ConfidenceScore(float((by_confidence - by_error).mean()), correlation)


def _sparsified(confidence: Array, errors: Array) -> Array:
    """Mean error over that of all after the least confident 0, 1, 2, ... % are gone: [100]."""
    _, group = np.unique(confidence, return_inverse=True)
    shared = (np.bincount(group, errors) / np.bincount(group))[group]
    surest_first = shared[np.argsort(-confidence, kind="stable")]
    mean = np.cumsum(surest_first) / np.arange(1, len(errors) + 1)
    kept = np.maximum(1, np.round(len(errors) * (1 - np.arange(FRACTIONS) / FRACTIONS)).astype(int))
    return np.asarray(mean[kept - 1] / errors.mean())
