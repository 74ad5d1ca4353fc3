"""Estimators with small networks, views of pictures of blocks, and when two predictions are the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.estimators.two_view import NetworkEstimator
from dust3r_ros.estimators.two_view.hardware import Hardware, choose_hardware
from dust3r_ros.estimators.two_view.runner import RunnerOptions
from dust3r_ros.geometry import Camera
from dust3r_ros.network import NetworkConfig
from support.networks import DPT, SMALL, small_network

CAMERA = Camera(100, 75, 90.0, 90.0, 49.5, 37.0)
MATCHED = replace(SMALL, patch_size=8, head="camera", match_width=8, detail_width=8)
EXACT = choose_hardware("cpu", "float32")
PAIRS = [(i, j) for i in range(4) for j in range(4) if i != j]


def image(seed: int, camera: Camera = CAMERA) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (camera.height // 5, camera.width // 5, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)


def estimator(config: NetworkConfig = DPT, hardware: Hardware = EXACT, **options: bool) -> NetworkEstimator:
    return NetworkEstimator(small_network(config), "small", hardware=hardware, options=RunnerOptions(**options))


def views(own: NetworkEstimator, count: int = 4) -> dict[int, Tokens]:
    return {key: own.encode(image(key), CAMERA) for key in range(count)}


def same(a: PairPrediction, b: PairPrediction, atol: float = 1e-5) -> None:
    assert (a.i, a.j) == (b.i, b.j)
    for name in ("points_i", "points_j", "confidence_i", "confidence_j"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=atol, rtol=1e-4)
