"""An estimator that knows the truth of a simulated sequence and adds chosen errors to it: tests apart from any network's quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.geometry import Camera, Rectification, working_camera
from dust3r_ros.simulation import SimulatedView

NEIGHBOURS = 8  # keyframes apart, within which pairs bend


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
        bend: float = 0.0,
        growth: float = 0.0,
    ) -> None:
        """Of pairs of neighbouring keyframes: `bend`, radians about the vertical by which they turn too far, and `growth`, by how much
        (log) the later one is too large: drift, which a loop takes out.
        """
        self._size, self._noise, self._outliers, self._scales, self._seed = size, noise, outliers, scales, seed
        self._views = {view.image.tobytes(): view for view in views}
        self._small = np.stack([_thumbnail(self._working(view)) for view in views])
        self._all, self._bend, self._growth = list(views), bend, growth
        self._wrong = set(wrong_pairs)
        self.encoded = 0

    def encode(self, image: NDArray[np.uint8], camera: Camera) -> Tokens:
        self.encoded += 1
        target = working_camera(camera, self._size)
        rectification = Rectification(camera, target)
        view = self._views.get(image.tobytes()) or self._nearly(image)
        depth = None
        if view is not None:  # sampled at pixel centres, not averaged: depth has edges
            u, v = np.meshgrid(np.arange(target.width), np.arange(target.height))
            own = view.camera  # the picture may come back reduced
            pixels = np.rint(own.project(target.unproject(np.stack([u, v], -1).reshape(-1, 2)))).astype(int)
            inside = ((pixels >= 0) & (pixels < (own.width, own.height))).all(1)
            depth = np.where(inside, view.depth[tuple(np.where(inside[:, None], pixels, 0).T[::-1])], 0.0).reshape(
                target.height, target.width
            )
        pose = None if view is None else view.pose
        return Tokens(camera, target, rectification.image(image), features=(depth, pose))

    def _working(self, view: SimulatedView) -> NDArray[np.uint8]:
        return np.asarray(Rectification(view.camera, working_camera(view.camera, self._size)).image(view.image))

    def _nearly(self, image: NDArray[np.uint8]) -> SimulatedView | None:
        """A picture that was reduced or compressed is known again."""
        off = np.abs(self._small - _thumbnail(image)).mean((1, 2))
        return self._all[int(off.argmin())] if off.min() < 2.0 else None

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        return [self._pair(i, j, views[i], views[j]) for i, j in pairs]

    def _pair(self, i: int, j: int, view_i: Tokens, view_j: Tokens) -> PairPrediction:
        rng = self._random(i, j, view_j)
        scale = float(np.exp(rng.normal(0, 0.5))) if self._scales else 1.0
        bend = self._bend * (j - i) if abs(j - i) <= NEIGHBOURS else 0.0
        larger = float(np.exp(self._growth * (j - i))) if abs(j - i) <= NEIGHBOURS else 1.0
        points_i, confidence_i = self._view(view_i, view_i, scale, rng, 0.0)
        points_j, confidence_j = self._view(view_j, view_i, scale, rng, bend, larger)
        if (i, j) in self._wrong:
            points_i, points_j = torch.from_numpy(rng.normal(size=(2, *points_i.shape)).astype(np.float32))
            confidence_i, confidence_j = torch.ones_like(confidence_i), torch.ones_like(confidence_j)
        return PairPrediction(i, j, points_i, points_j, confidence_i, confidence_j)

    def _random(self, i: int, j: int, view_j: Tokens) -> np.random.Generator:  # noqa: ARG002
        """What a pair's errors are drawn from."""
        return np.random.default_rng([self._seed, i, j])

    def _view(
        self, view: Tokens, front: Tokens, scale: float, rng: np.random.Generator, bend: float, larger: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = view.camera.height, view.camera.width
        depth, pose = view.features
        _, front_pose = front.features
        if depth is None or front_pose is None:
            return torch.zeros(height, width, 3), torch.ones(height, width)
        known = depth > 0
        relative = self._relative(front_pose, pose)
        relative[:3, :3] = relative[:3, :3] @ Rotation.from_euler("y", bend).as_matrix()
        noisy = larger * depth * (1 + self._noise * rng.normal(size=depth.shape))
        spoilt = rng.random(depth.shape) < self._outliers
        noisy = np.where(spoilt, depth * np.exp(rng.normal(0, 1, depth.shape)), noisy)
        points = (view.camera.rays() * noisy[..., None]) @ relative[:3, :3].T + relative[:3, 3]
        confidence = np.where(known, np.where(spoilt, 1.5, 10.0), 1.0)
        return torch.from_numpy((scale * points).astype(np.float32)), torch.from_numpy(confidence.astype(np.float32))

    def _relative(self, front: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
        """Camera `pose` in camera `front`, [4, 4]."""
        return np.linalg.inv(front) @ pose


class FooledEstimator(SimulatedEstimator):
    """Takes places that are a multiple of `period` metres apart along y for one: what any estimator must do where all looks the same."""

    def __init__(self, views: Sequence[SimulatedView], period: float, neighbours: int = 0, **errors: object) -> None:
        """`neighbours`: pairs of keyframes whose indices are no further apart are right, so that the odometry is not fooled too."""
        super().__init__(views, **errors)  # type: ignore[arg-type]
        self._period, self._neighbours, self._fooled = period, neighbours, True

    def _pair(self, i: int, j: int, view_i: Tokens, view_j: Tokens) -> PairPrediction:
        self._fooled = abs(i - j) > self._neighbours
        return super()._pair(i, j, view_i, view_j)

    def _relative(self, front: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
        near = pose.copy()
        near[1, 3] -= self._fooled * self._period * np.round((pose[1, 3] - front[1, 3]) / self._period)
        return super()._relative(front, near)


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (24, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
