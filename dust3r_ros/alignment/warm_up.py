"""The compiled loops, ready before the first keyframe: on a new machine they are compiled once, later loaded."""

from __future__ import annotations

import numpy as np
import torch

from dust3r_ros.alignment.aligner import Aligner
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Camera, solve_pnp

HEIGHT, WIDTH = 24, 32


def warm_up() -> None:
    """Align three small pictures of a wavy wall, and find a camera by some of its points; for any thread."""
    aligner = Aligner()
    for k in range(3):
        pairs = [pair for j in range(k) for pair in (_pair(j, k), _pair(k, j))]
        aligner.add(k, pairs)
    aligner.retire(0)
    aligner.align()
    camera = Camera.from_fov(WIDTH, HEIGHT, 60.0)
    rays = camera.rays()[::4, ::4].reshape(-1, 3)
    solve_pnp(2.0 * rays, camera.project(rays), camera, guess=np.eye(4))


def _pair(i: int, j: int) -> PairPrediction:
    """Cameras side by side, 0.1 apart, before a wall 2 away."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]

    def seen(k: int) -> torch.Tensor:
        depth = 2.0 + 0.1 * np.sin(0.7 * u + 0.3 * v + k)
        points = np.stack([(u - WIDTH / 2) / WIDTH * depth + 0.1 * (k - i), (v - HEIGHT / 2) / WIDTH * depth, depth], axis=-1)
        return torch.from_numpy(points.astype(np.float32))

    sure = torch.full((HEIGHT, WIDTH), 5.0)
    return PairPrediction(i, j, seen(i), seen(j), sure, sure)
