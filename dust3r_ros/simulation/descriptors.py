"""Descriptors as an ideal matching network would give them: functions of the place in the world that a pixel shows, plus noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.simulation.sequence import SimulatedView

LONGEST, SHORTEST = 4.0, 0.15  # metres: wavelengths of the waves that a place is told by


def world_descriptors(view: SimulatedView, width: int = 24, noise: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """[H, W, width] float32, unit length: sines and cosines of the true world point along random directions (random Fourier features).

    Equal in every view of one `seed` for the same place; the dot product of two places falls with their distance. `noise`: length of a
    random vector added to each pixel's, drawn anew for each view. `width` is even.
    """
    points = (view.camera.rays() * view.depth[..., None]) @ view.pose[:3, :3].T + view.pose[:3, 3]
    rng = np.random.default_rng([seed, 31])
    directions = rng.normal(size=(3, width // 2))
    waves = 2 * np.pi / np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST), width // 2))
    phase = points @ (directions / np.linalg.norm(directions, axis=0) * waves)
    values = np.concatenate([np.sin(phase), np.cos(phase)], axis=-1) / np.sqrt(width // 2)
    own = np.random.default_rng([seed, 32, view.stamp % 2**32])
    values = values + noise / np.sqrt(width) * own.normal(size=values.shape)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True), np.float32)
