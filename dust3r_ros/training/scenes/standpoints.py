"""Where a scene's cameras may stand and what they may look at, drawn for many scenes at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dust3r_ros.training.scenes.drafting import Array, Draft

TRIES = 6  # first cameras that are tried for each scene


@dataclass(frozen=True)
class Standpoints:
    """Candidates for a scene's first camera, in metres."""

    positions: Array  # [count, TRIES, 3]
    targets: Array  # [count, TRIES, 3] looked at
    low: Array  # [count, 3] where any camera of the scene may be
    high: Array  # [count, 3]
    near: Array  # [count] the least median depth that is no nose at a wall

    @staticmethod
    def in_box(draft: Draft, low: Array, high: Array, heights: tuple[float, float], reach: Array) -> Standpoints:
        """Anywhere between `low` and `high` [count, 3] at `heights`, looking at another place of the same room, `reach` half its size."""
        n, rng = draft.count, draft.rng
        positions = low[:, None] + rng.random((n, TRIES, 3)) * (high - low)[:, None]
        positions[..., 2] = rng.uniform(*heights, (n, TRIES))
        angle = rng.uniform(0, 2 * np.pi, (n, TRIES))
        targets = np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1) * reach[:, None] * rng.uniform(0.2, 0.9, (n, TRIES, 1))
        targets[..., 2] = rng.uniform(0.2, 1.6, (n, TRIES))
        low, high = low.copy(), high.copy()
        low[:, 2], high[:, 2] = 0.15, 2 * reach[:, 2] - 0.2
        return Standpoints(positions, targets, low, high, np.minimum(reach[:, 0], reach[:, 1]) * 0.35)
