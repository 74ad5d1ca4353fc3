"""The compiled loops, ready before the first keyframe: on a new machine they are compiled once, later loaded."""

from __future__ import annotations

import numpy as np
import torch

from dust3r_ros.alignment.aligner import Aligner
from dust3r_ros.estimators import PairPrediction

HEIGHT, WIDTH = 24, 32


def warm_up() -> None:
    """Align three small pictures of a wavy wall; for any thread."""
    aligner = Aligner()
    for k in range(3):
        pairs = [pair for j in range(k) for pair in (_pair(j, k), _pair(k, j))]
        aligner.add(k, pairs)
    aligner.retire(0)
    aligner.align()


def _pair(i: int, j: int) -> PairPrediction:
    """Cameras side by side, 0.1 apart, before a wall 2 away."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]

    def seen(k: int) -> torch.Tensor:
        depth = 2.0 + 0.1 * np.sin(0.7 * u + 0.3 * v + k)
        points = np.stack([(u - WIDTH / 2) / WIDTH * depth + 0.1 * (k - i), (v - HEIGHT / 2) / WIDTH * depth, depth], axis=-1)
        return torch.from_numpy(points.astype(np.float32))

    sure = torch.full((HEIGHT, WIDTH), 5.0)
    return PairPrediction(i, j, seen(i), seen(j), sure, sure)
