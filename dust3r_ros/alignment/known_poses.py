"""The frame that known camera poses give to a scene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Similarity


def pose_similarity(source: NDArray[np.float64], target: NDArray[np.float64], scale: float | None = None) -> Similarity:
    """The similarity that carries camera poses (N, 4, 4) onto others: mean rotation, ratio of spreads or given scale, mean position."""
    u, _, vt = np.linalg.svd(np.einsum("nij,nkj->ik", target[:, :3, :3], source[:, :3, :3]))
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    source_mean, target_mean = source[:, :3, 3].mean(0), target[:, :3, 3].mean(0)
    if scale is None:
        spread = float(np.linalg.norm(source[:, :3, 3] - source_mean))
        scale = float(np.linalg.norm(target[:, :3, 3] - target_mean)) / spread if spread > 1e-12 else 1.0
    scale = scale if scale > 1e-12 else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)
