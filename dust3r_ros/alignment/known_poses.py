"""The frame that known camera poses give to a scene."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.chain import PlacedImage
from dust3r_ros.geometry import Similarity


def to_known_poses(placed: Mapping[int, PlacedImage], known: Mapping[int, NDArray[np.float64]]) -> Similarity:
    """The similarity from the tree's frame to that of the known poses: mean rotation, ratio of spreads, mean position."""
    shared = [image for image in placed if image in known]
    if not shared:
        return Similarity.identity()
    estimated, given = np.stack([placed[image].pose for image in shared]), np.stack([known[image] for image in shared])
    return pose_similarity(estimated, given)


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
