"""Two poses of one frame, by points that were followed and by a pair, and how much each is to be believed.

A pair's points err together: what its covariance by PnP leaves out is learned from how far pairs and followed points have differed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import inverse_pose, pose_matrix
from dust3r_ros.mapping.tracking.tracker import TrackedPose

PRIOR, PRIOR_PAIRS = 3e-3, 3  # rad and share of the distance, before anything is known; as many pairs as it counts for
LEAST = 1e-4
REMEMBERED = 30  # pairs
CONTRADICTS = 5.0  # standard deviations a degree of freedom
SURPRISE = 3.0  # standard deviations: a larger difference teaches no more than this

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairErrors:
    """Standard deviations of what a whole pair puts its second view beside the truth: radians, share of the points' distance."""

    turn: float = PRIOR
    place: float = PRIOR
    pairs: int = PRIOR_PAIRS

    def covariance(self, distance: float) -> Array:
        """[6, 6] of a pose increment: rotation, translation."""
        return np.diag([self.turn**2] * 3 + [(self.place * distance) ** 2] * 3)

    def learned(self, by_points: TrackedPose, by_pair: TrackedPose, distance: float) -> PairErrors:
        """From one more frame. What the two covariances by PnP explain is not the pair's error as a whole."""
        if by_points.covariance is None or by_pair.covariance is None:
            return self
        off = _between(by_points.pose, by_pair.pose) ** 2 - np.diag(by_points.covariance + by_pair.covariance)
        count = min(self.pairs + 1, REMEMBERED)

        def better(known: float, seen: float) -> float:
            seen = min(max(seen, LEAST**2), (SURPRISE * known) ** 2)
            return float(np.sqrt(known**2 + (seen - known**2) / count))

        return PairErrors(better(self.turn, float(off[:3].mean())), better(self.place, float(off[3:].mean()) / distance**2), count)


def contradict(one: TrackedPose, other: TrackedPose) -> bool:
    """Whether two poses of one frame differ by more than their covariances explain."""
    if one.covariance is None or other.covariance is None:
        return False
    off = _between(one.pose, other.pose)
    return float(off @ np.linalg.solve(one.covariance + other.covariance, off)) > CONTRADICTS**2 * len(off)


def together(one: TrackedPose, other: TrackedPose) -> TrackedPose:
    """Both, each weighted by its information, the inverse of its covariance. Without covariances, the first."""
    if one.covariance is None or other.covariance is None:
        return one
    information = np.linalg.inv(other.covariance)
    covariance = np.linalg.inv(np.linalg.inv(one.covariance) + information)
    step = covariance @ information @ _between(one.pose, other.pose)
    pose = one.pose @ pose_matrix(Rotation.from_rotvec(step[:3]).as_matrix(), step[3:])
    return replace(one, pose=pose, covariance=covariance)


def _between(one: Array, other: Array) -> Array:
    """[6] the increment on the right of `one` that leads to `other`: rotation vector, then translation."""
    step = inverse_pose(one) @ other
    return np.concatenate([Rotation.from_matrix(step[:3, :3]).as_rotvec(), step[:3, 3]])
