"""A camera that goes 5 m round the room, and what wheels beside it would say."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.simulation import SimulatedView, circle_sequence

FRAMES = 56


@lru_cache(maxsize=1)
def once_round() -> list[SimulatedView]:
    return list(circle_sequence(FRAMES, 160, 120, diameter=1.6))


def wheels(views: Sequence[SimulatedView], noise: float = 0.05, seed: int = 0, slip: Sequence[int] = ()) -> list[NDArray[np.float64]]:
    """The camera's pose in an odometry frame at each view: every step's length is off by `noise` (a share, one standard deviation).

    In the steps of `slip` the wheels spin and count five times the way.
    """
    rng, pose = np.random.default_rng(seed), views[0].pose
    poses = [pose]
    for n, (before, after) in enumerate(itertools.pairwise(views)):
        step = np.linalg.inv(before.pose) @ after.pose
        step[:3, 3] *= (1 + noise * rng.normal()) * (5.0 if n in slip else 1.0)
        pose = pose @ step
        poses.append(pose)
    return poses
