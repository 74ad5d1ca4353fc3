"""An estimator that knows the truth of a simulated sequence and adds chosen errors to it: tests apart from any network's quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.geometry import Camera, Rectification, working_camera
from dust3r_ros.simulation import SimulatedView


class SimulatedEstimator:
    """True pointmaps of known views, each pair on a scale of its own, with noise, outliers and pairs that are wrong."""

    name = "simulated"

    def __init__(
        self,
        views: Sequence[SimulatedView],
        size: int = 80,
        noise: float = 0.0,
        outliers: float = 0.0,
        scales: bool = True,
        wrong_pairs: Sequence[tuple[int, int]] = (),
        seed: int = 0,
    ) -> None:
        self._views = {view.image.tobytes(): view for view in views}
        self._size, self._noise, self._outliers, self._scales, self._seed = size, noise, outliers, scales, seed
        self._wrong = set(wrong_pairs)
        self.encoded = 0

    def encode(self, image: NDArray[np.uint8], camera: Camera) -> Tokens:
        self.encoded += 1
        target = working_camera(camera, self._size)
        rectification = Rectification(camera, target)
        view = self._views.get(image.tobytes())
        depth = None
        if view is not None:  # sampled at pixel centres, not averaged: depth has edges
            u, v = np.meshgrid(np.arange(target.width), np.arange(target.height))
            pixels = np.rint(camera.project(target.unproject(np.stack([u, v], -1).reshape(-1, 2)))).astype(int)
            inside = ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(1)
            depth = np.where(inside, view.depth[tuple(np.where(inside[:, None], pixels, 0).T[::-1])], 0.0).reshape(
                target.height, target.width
            )
        pose = None if view is None else view.pose
        return Tokens(camera, target, rectification.image(image), features=(depth, pose))

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        return [self._pair(i, j, views[i], views[j]) for i, j in pairs]

    def _pair(self, i: int, j: int, view_i: Tokens, view_j: Tokens) -> PairPrediction:
        rng = np.random.default_rng([self._seed, i, j])
        scale = float(np.exp(rng.normal(0, 0.5))) if self._scales else 1.0
        points_i, confidence_i = self._view(view_i, view_i, scale, rng)
        points_j, confidence_j = self._view(view_j, view_i, scale, rng)
        if (i, j) in self._wrong:
            points_i, points_j = torch.from_numpy(rng.normal(size=(2, *points_i.shape)).astype(np.float32))
            confidence_i, confidence_j = torch.ones_like(confidence_i), torch.ones_like(confidence_j)
        return PairPrediction(i, j, points_i, points_j, confidence_i, confidence_j)

    def _view(self, view: Tokens, front: Tokens, scale: float, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = view.camera.height, view.camera.width
        depth, pose = view.features
        _, front_pose = front.features
        if depth is None or front_pose is None:
            return torch.zeros(height, width, 3), torch.ones(height, width)
        known = depth > 0
        relative = np.linalg.inv(front_pose) @ pose
        noisy = depth * (1 + self._noise * rng.normal(size=depth.shape))
        spoilt = rng.random(depth.shape) < self._outliers
        noisy = np.where(spoilt, depth * np.exp(rng.normal(0, 1, depth.shape)), noisy)
        points = (view.camera.rays() * noisy[..., None]) @ relative[:3, :3].T + relative[:3, 3]
        confidence = np.where(known, np.where(spoilt, 1.5, 10.0), 1.0)
        return torch.from_numpy((scale * points).astype(np.float32)), torch.from_numpy(confidence.astype(np.float32))
