"""Pair predictions straight from depths and poses, without a picture, with errors like a network's: smooth, uneven, known to itself.

`SimulatedEstimator` gives every pixel noise of its own, which averages out; what bends an alignment is noise that neighbours share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.estimators import PairMotion, PairPrediction
from dust3r_ros.geometry import Camera
from dust3r_ros.simulation import SimulatedSequence

Pair = tuple[int, int]
Wrong = Literal["moved", "mistaken"]  # view j's points moved by a rigid motion; or they are another view's, as of a place that looks alike

TRUST = 0.2  # a confidence that costs log C and saves error / C is TRUST over the error it expects (DUSt3R, equation 4)
LEAST = 1.05  # of what is known
SAME = 0.05  # difference of depth up to which two views show the same surface


@dataclass(frozen=True)
class PairErrors:
    noise: float = 0.03  # relative error of depth, standard deviation
    cells: tuple[int, int] = (3, 4)  # of the error's field, down and across
    unevenness: float = 0.5  # standard deviation of the logarithm of the noise's own size over a view
    outliers: float = 0.02  # share of the pixels
    scales: float = 0.3  # standard deviation of the logarithm of a pair's scale
    apart: float = 0.0  # how many times more noise the second view has where the two have nothing in common; slight from a third on
    motion: tuple[float, float] | None = None  # pairs tell of their cameras, wrong by sigmas of this: rad, share of the mean distance


class PairSimulator:
    """Any pair of known views; the same pair is always the same.

    Points are in metres times the pair's scale. A confidence says what error is to be expected of its point, in shares of the pair's mean
    distance; outliers have a low one. A pair that is wrong is as sure as the others.
    """

    def __init__(
        self,
        depths: Sequence[NDArray[np.floating]],  # [H, W] metres along z, all of them known
        poses: Sequence[NDArray[np.float64]],  # [4, 4] camera to world
        camera: Camera,
        errors: PairErrors | None = None,
        wrong: Mapping[Pair, Wrong] | None = None,
        seed: int = 0,
    ) -> None:
        self.depths = [np.asarray(depth, np.float32) for depth in depths]
        self.poses, self.camera = list(poses), camera
        self._errors, self.wrong, self._seed = errors or PairErrors(), dict(wrong or {}), seed
        self._rays = camera.rays()
        rows, columns = self._errors.cells
        self._down, self._across = bumps(camera.height, rows), bumps(camera.width, columns)

    @classmethod
    def of(
        cls,
        sequence: SimulatedSequence,
        errors: PairErrors | None = None,
        wrong: Mapping[Pair, Wrong] | None = None,
        seed: int = 0,
        apart: int = 1,
    ) -> PairSimulator:
        """Every `apart`-th view of a sequence."""
        frames = range(0, len(sequence), apart)
        return cls([sequence.depth(k) for k in frames], [sequence.pose(k) for k in frames], sequence.camera, errors, wrong, seed)

    def pairs(self, pairs: Sequence[Pair]) -> list[PairPrediction]:
        return [self.pair(i, j) for i, j in pairs]

    def pair(self, i: int, j: int) -> PairPrediction:
        rng = np.random.default_rng([self._seed, 17, i, j])
        scale = float(np.exp(self._errors.scales * rng.normal()))
        mean = float(np.mean([self.depths[i].mean(), self.depths[j].mean()]))
        points_i, confidence_i = self._view(i, i, mean, 1.0, rng)
        kind = self.wrong.get((i, j))
        shown = int(rng.choice([k for k in range(len(self.depths)) if k not in (i, j)])) if kind == "mistaken" else j
        blind = 1.0 + (self._errors.apart * (1.0 - self.overlap(i, j)) ** 4 if self._errors.apart else 0.0)
        points_j, confidence_j = self._view(i, shown, mean, blind, rng)
        motion = self._motion(i, shown, mean, scale, rng)
        if kind == "moved":
            turn = Rotation.from_rotvec(_direction(rng) * rng.uniform(0.5, 2.5)).as_matrix()
            points_j = points_j @ turn.T.astype(np.float32) + (_direction(rng) * mean * rng.uniform(0.3, 1.0)).astype(np.float32)
        factor = np.float32(scale)
        views = (torch.from_numpy(a) for a in (factor * points_i, factor * points_j, confidence_i, confidence_j))
        return PairPrediction(i, j, *views, motion=motion)

    def _motion(self, i: int, j: int, mean: float, scale: float, rng: np.random.Generator) -> PairMotion | None:
        if self._errors.motion is None:
            return None
        (turn, move), pose = self._errors.motion, np.linalg.inv(self.poses[i]) @ self.poses[j]
        off = Rotation.from_rotvec(turn * rng.normal(size=3)).as_matrix()
        moved = pose[:3, 3] + move * mean * rng.normal(size=3)
        return PairMotion(off @ pose[:3, :3], scale * moved, turn, scale * move * mean)

    def overlap(self, i: int, j: int) -> float:
        """Of the share of one view's pixels that the other shows too, the smaller."""
        return min(self._seen(i, j), self._seen(j, i))

    def _seen(self, i: int, j: int, step: int = 6) -> float:
        """Share of view i's pixels (every `step`-th) that view j shows."""
        depth = self.depths[j]
        relative = np.linalg.inv(self.poses[j]) @ self.poses[i]
        points = (self._rays * self.depths[i][..., None])[::step, ::step].reshape(-1, 3) @ relative[:3, :3].T + relative[:3, 3]
        pixels = np.rint(np.nan_to_num(self.camera.project(points), nan=-1.0)).astype(int)
        inside = ((pixels >= 0) & (pixels < (self.camera.width, self.camera.height))).all(1)
        u, v = pixels[inside].T
        return float((np.abs(depth[v, u] - points[inside, 2]) < SAME * points[inside, 2]).sum() / len(points))

    def _view(
        self, front: int, view: int, mean: float, times: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        errors, depth = self._errors, self.depths[view]
        size = np.float32(errors.noise * times) * np.exp(np.float32(errors.unevenness) * self._field(rng))
        expected = size * depth / np.float32(mean)
        confidence = np.maximum(np.float32(TRUST) / np.maximum(expected, np.float32(TRUST / 50)), np.float32(LEAST))
        noisy = depth * np.exp(size * self._field(rng))
        spoilt = np.unique(rng.integers(0, depth.size, round(errors.outliers * depth.size)))
        noisy.flat[spoilt] *= np.exp(rng.normal(size=len(spoilt))).astype(np.float32)
        confidence.flat[spoilt] = rng.uniform(LEAST, 1.5, len(spoilt))
        relative = (np.linalg.inv(self.poses[front]) @ self.poses[view]).astype(np.float32)
        points = (self._rays * noisy[..., None]) @ relative[:3, :3].T + relative[:3, 3]
        return np.ascontiguousarray(points), confidence

    def _field(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """[H, W] Gaussian, of unit variance at every pixel, alike within a cell and independent beyond a few."""
        nodes = rng.standard_normal((self._down.shape[1], self._across.shape[1]), np.float32)
        return self._down @ nodes @ self._across.T


def bumps(pixels: int, cells: int) -> NDArray[np.float32]:
    """[pixels, cells + 3] weights of nodes one cell apart, from one before the first pixel to one beyond the last; rows of unit length."""
    at = (np.arange(pixels) + 0.5) / pixels * cells + 1
    weights = np.exp(-0.5 * ((at[:, None] - np.arange(cells + 3)) / 0.6) ** 2)
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True), np.float32)


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))
