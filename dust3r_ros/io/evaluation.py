"""How far a result is from the truth, as the field measures it: trajectories through evo, depth images after one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.io.trajectory import Trajectory

MAX_DIFFERENCE = 0.02  # seconds between two poses that are compared


class EvaluationError(Dust3rError):
    """Two things that cannot be compared."""


@dataclass(frozen=True)
class TrajectoryError:
    """Absolute trajectory error (Sturm et al., IROS 2012) after the best similarity (Umeyama 1991), in the truth's unit."""

    matched: int  # poses with a true one at their time
    poses: int
    rmse: float
    median: float
    largest: float
    extent: float  # the largest distance between two true positions
    scale: float  # truth's units in one of the estimate's

    @property
    def percent(self) -> float:
        """RMSE as a share of the extent."""
        return 100 * self.rmse / self.extent


@dataclass(frozen=True)
class DepthError:
    """Over the pixels whose depth is estimated and known, after one scale: the median ratio (Eigen et al., NIPS 2014)."""

    abs_rel: float  # mean of |estimate - truth| / truth
    within_25_percent: float  # share with max(estimate / truth, truth / estimate) < 1.25
    coverage: float  # share of the known pixels that have an estimate
    scale: float


def trajectory_error(estimate: Trajectory, truth: Trajectory, max_difference: float = MAX_DIFFERENCE) -> TrajectoryError:
    """Compare the positions of `estimate` with those of `truth` nearest in time, at most `max_difference` seconds apart.

    Raises EvaluationError for fewer than three matches, for a truth that does not move, and without evo.
    """
    try:
        from evo.core import metrics, sync
    except ImportError as error:
        raise EvaluationError("evaluation needs evo, which is not there: pip install 'dust3r_ros[evaluation]'") from error
    if not estimate or not truth:
        raise EvaluationError(f"{len(estimate)} poses and {len(truth)} true ones: nothing to compare")
    try:
        reference, found = sync.associate_trajectories(_evo(truth), _evo(estimate), max_diff=max_difference)
    except sync.SyncException:
        matched = 0
    else:
        matched = int(found.num_poses)
    if matched < 3:
        raise EvaluationError(
            f"only {matched} of {len(estimate)} poses have a true one within {max_difference:g} s, three are needed: "
            f"the poses are of {estimate[0][0] * 1e-9:.3f} to {estimate[-1][0] * 1e-9:.3f} s, "
            f"the truth is of {truth[0][0] * 1e-9:.3f} to {truth[-1][0] * 1e-9:.3f} s"
        )
    extent = _extent(np.asarray(reference.positions_xyz))
    if not extent > 0:
        raise EvaluationError(f"the {matched} true positions are all the same: there is nothing to align with")
    try:
        _, _, scale = found.align(reference, correct_scale=True)
    except Exception as error:  # evo's own, for positions on one point
        raise EvaluationError(f"the poses cannot be aligned with the truth: {' '.join(str(error).split())}") from error
    positions = metrics.APE(metrics.PoseRelation.translation_part)
    positions.process_data((reference, found))
    figures = positions.get_all_statistics()
    return TrajectoryError(matched, len(estimate), figures["rmse"], figures["median"], figures["max"], extent, float(scale))


def depth_error(estimate: NDArray[np.float32], truth: NDArray[np.float32]) -> DepthError:
    """Compare depth images of one shape (or stacks of them); 0 where nothing is known. Raises EvaluationError."""
    if estimate.shape != truth.shape:
        raise EvaluationError(f"depth of shape {estimate.shape} and truth of shape {truth.shape} cannot be compared: resize one")
    known = np.isfinite(truth) & (truth > 0)
    both = known & np.isfinite(estimate) & (estimate > 0)
    if not both.any():
        raise EvaluationError(f"no pixel has both an estimate and a true depth ({int(known.sum())} have a true one)")
    true, found = truth[both].astype(np.float64), estimate[both].astype(np.float64)
    scale = float(np.median(true / found))
    ratio = found * scale / true
    inside = np.maximum(ratio, 1 / ratio) < 1.25
    return DepthError(float(np.abs(ratio - 1).mean()), float(inside.mean()), float(both.sum() / known.sum()), scale)


def _evo(trajectory: Trajectory) -> Any:
    from evo.core.trajectory import PoseTrajectory3D

    stamps = np.array([stamp for stamp, _ in trajectory], np.float64) * 1e-9
    return PoseTrajectory3D(poses_se3=[pose for _, pose in trajectory], timestamps=stamps)


def _extent(positions: NDArray[np.float64]) -> float:
    """The largest distance between two of [N, 3] positions: between corners of their convex hull, so that long paths are no matter."""
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import pdist

    if len(positions) > 1000:
        try:
            positions = positions[ConvexHull(positions).vertices]
        except QhullError:  # in a plane or on a line
            positions = positions[:: len(positions) // 1000]
    return float(pdist(positions).max())
