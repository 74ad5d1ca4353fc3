"""The odometry's errors over simulated walks, beside the covariance that came with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.mapping import Frame, Mapper, MapperConfig, TrackingState, with_settings
from dust3r_ros.simulation import SimulatedSequence, circle_sequence, room_sequence
from support.simulated_estimator import SimulatedEstimator

WALKS = {
    "room": lambda frames, width, seed: room_sequence(frames, width, 3 * width // 4, seed),
    "circle": lambda frames, width, seed: circle_sequence(2 * frames, width, 3 * width // 4, seed),
    "circle outward": lambda frames, width, seed: circle_sequence(2 * frames, width, 3 * width // 4, seed, inward=False),
}


@dataclass(frozen=True, eq=False)
class OdometryError:
    """Of one frame, in map units and radians, along the odometry's axes."""

    error: NDArray[np.float64]  # [6] position, rotation vector
    covariance: NDArray[np.float64]  # [6, 6]


def odometry_errors(walk: str, frames: int, width: int, noise: float, seed: int, **changes: object) -> list[OdometryError]:
    """Frames that have odometry, from the second on until the camera is lost, if it is: what it misses is not the covariance's to say.

    The scale is that of the first keyframe's depth; the first pose is the truth's.
    """
    sequence: SimulatedSequence = WALKS[walk](frames, width, seed)
    views = [sequence[k] for k in range(frames)]
    config = with_settings(MapperConfig(), {"alignment.loops": False, **changes})
    mapper = Mapper(config, SimulatedEstimator(views, size=width, noise=noise, seed=seed))
    updates = [mapper.add(Frame(view.stamp, view.image, view.camera)) for view in views]
    known = [(update, view) for update, view in zip(updates, views, strict=True) if update.odometry is not None]
    if not known:
        return []
    begin_odometry, begin_truth = known[0][0].odometry, known[0][1].pose
    first = next(update for update in updates if update.is_keyframe).keyframes[0]
    depth = next(view.depth for view in views if view.stamp == first.stamp)
    unit = float(np.median(depth)) / float(np.median(first.depth[first.depth > 0]))  # metres for one of the map's
    errors = []
    for update, view in known[1:]:
        if update.state is TrackingState.LOST or update.found_again:
            break
        moved = np.linalg.inv(begin_truth) @ view.pose
        moved[:3, 3] /= unit
        true = begin_odometry @ moved
        place = update.odometry[:3, 3] - true[:3, 3]
        turn = Rotation.from_matrix(update.odometry[:3, :3] @ true[:3, :3].T).as_rotvec()
        errors.append(OdometryError(np.concatenate([place, turn]), np.asarray(update.odometry_covariance)))
    return errors


def normalised_errors(errors: list[OdometryError], part: str = "all") -> NDArray[np.float64]:
    """[N] e' C^-1 e by degree of freedom: 1 on average where the covariance is right."""
    rows = {"all": slice(0, 6), "position": slice(0, 3), "rotation": slice(3, 6)}[part]
    found = [e.error[rows] @ np.linalg.solve(e.covariance[rows, rows], e.error[rows]) for e in errors]
    return np.array(found) / (rows.stop - rows.start)
