"""Joint bundle adjustment over a window: poses and inverse depths from direct flows (Schur complement, Levenberg-Marquardt)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.bundle_equations import Observations, linearise, moved, normal_equations, solve

Floats = NDArray[np.float64]

FIRST_DAMPING = 1e-3


def adjust(observations: Observations, poses: Floats, inverse_depth: Floats, iterations: int) -> tuple[Floats, Floats, float]:
    """Refined poses [V, 4, 4] (world to camera; the first is held), inverse depths [V, N] and the mean robust cost (pixels squared).

    The scale of the whole is free; damping keeps it near where it was.
    """
    damping = FIRST_DAMPING
    total = max(float(observations.weight.sum()), 1e-9)
    state = linearise(observations, poses, inverse_depth)
    normal = normal_equations(observations, inverse_depth, state)
    for _ in range(iterations):
        move, deeper = solve(normal, damping)
        new_poses, new_inverse_depth = moved(poses, move), inverse_depth + deeper.reshape(inverse_depth.shape)
        candidate = linearise(observations, new_poses, new_inverse_depth)
        if candidate.cost < state.cost:
            finished = state.cost - candidate.cost < 1e-5 * state.cost
            poses, inverse_depth, state = new_poses, new_inverse_depth, candidate
            damping = max(damping / 5, 1e-7)
            if finished:
                break
            normal = normal_equations(observations, inverse_depth, state)
        else:
            damping *= 10
            if damping > 1e6:
                break
    return poses, inverse_depth, state.cost / total
