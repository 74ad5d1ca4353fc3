"""How well poses, focal lengths and depths agree with the pair predictions: one ruler for every result.

`mean_e sum_{v in e} mean_pixels log(C_{v,e}) * || P_v(ray(f_v) * D_v) - s_e P_e X_{v,e} ||`, gauge: geometric mean of the s_e is 0.5
(DUSt3R, equation 5; log confidence as weights). The norm is the plain Euclidean distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity


def world_points(
    depth: torch.Tensor, pose: NDArray[np.float64], focal: float, principal_point: tuple[float, float] | None = None
) -> torch.Tensor:
    """[H, W] depth to [H, W, 3] world points; the principal point is (W/2, H/2) unless given."""
    height, width = depth.shape
    cx, cy = principal_point or (width / 2, height / 2)
    v, u = torch.meshgrid(torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32), indexing="ij")
    camera = torch.stack([(u - cx) / focal * depth, (v - cy) / focal * depth, depth], dim=-1)
    return apply(Similarity(1.0, pose[:3, :3], pose[:3, 3]), camera)


def objective(
    predictions: Sequence[PairPrediction],
    points: Mapping[int, torch.Tensor],  # node: [H, W, 3] world points, from `world_points`
    pairs: Sequence[Similarity],  # s_e P_e for each prediction, on the same scale
) -> float:
    """The alignment objective over all pixels of all predictions, in its fixed gauge."""
    total = 0.0
    for prediction, pair in zip(predictions, pairs, strict=True):
        for node, seen, confidence in (
            (prediction.i, prediction.points_i, prediction.confidence_i),
            (prediction.j, prediction.points_j, prediction.confidence_j),
        ):
            distance = torch.linalg.vector_norm(points[node] - apply(pair, seen), dim=-1)
            weighted = torch.where(confidence > 1, torch.log(confidence) * distance, 0.0)  # what is not known may be anything
            total += float(weighted.mean(dtype=torch.float64))
    gauge = 0.5 / math.exp(sum(math.log(pair.scale) for pair in pairs) / len(pairs))
    return gauge * total / len(predictions)


def apply(similarity: Similarity, points: torch.Tensor) -> torch.Tensor:
    """[..., 3] float32 points through a similarity."""
    linear = torch.from_numpy((similarity.scale * similarity.rotation).astype(np.float32))
    return points @ linear.T + torch.from_numpy(np.asarray(similarity.translation, np.float32))
