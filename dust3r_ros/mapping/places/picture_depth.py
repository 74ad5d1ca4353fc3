"""The depth of a picture that was placed in a map, from the pairs that placed it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import inverse_pose, transform_points

Told = tuple[NDArray[np.float64], float, PairPrediction]  # keyframe's pose [4, 4], map units for one of the pair's, the pair


def depth_by_pairs(pose: NDArray[np.float64], told: Sequence[Told]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth [h, w] along z of the camera at `pose` (camera to world, 4x4) in map units, 0 where unknown, and its confidence, at least 1.

    Each pair (keyframe, picture) says where the picture's pixels lie; what counts is the mean weighted by log confidence. Confidence is the
    largest.
    """
    total = weights = np.zeros(told[0][2].confidence_j.shape)
    confidence = np.ones(weights.shape, np.float32)
    for keyframe_pose, scale, prediction in told:
        points = prediction.points_j.cpu().numpy().astype(np.float64) * scale
        sure = prediction.confidence_j.cpu().numpy()
        depth = transform_points(inverse_pose(pose) @ keyframe_pose, points)[..., 2]
        weight = np.where(np.isfinite(depth) & (depth > 0), np.log(np.maximum(sure, 1.0)), 0.0)
        total, weights = total + weight * np.where(weight > 0, depth, 0.0), weights + weight
        confidence = np.maximum(confidence, np.where(weight > 0, sure, 1.0)).astype(np.float32)
    return np.where(weights > 0, total / np.maximum(weights, 1e-12), 0.0).astype(np.float32), confidence
