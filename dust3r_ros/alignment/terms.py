"""The problem's sums over pixels, where its predictions are: by compiled loops on the CPU, by kernels on a GPU.

What solves the problem lies above and knows of neither: a state goes in, small arrays come out.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.alignment.compiled import EDGE, fit_depths, linearise
from dust3r_ros.alignment.linear_system import Model
from dust3r_ros.alignment.problem import Array, Problem, State
from dust3r_ros.alignment.workers import ranges
from dust3r_ros.kernels import alignment as kernels

DEPTH_ROUNDS = 3  # reweightings after each step
LARGE = 20_000  # residuals from which two threads pay


class Terms(Protocol):
    """The sums over all residuals of one problem."""

    def evaluate(self, state: State, eps: float, anew: bool = False) -> tuple[Array, float]:
        """depth [N, S] fitted to everything else (`anew`: from the best single pair's), and the sum of the norms smoothed by eps."""
        ...

    def model(self, state: State, eps: float, alpha: float) -> Model:
        """The second order at a state, each image alone, its depths eliminated."""
        ...


def terms_of(problem: Problem) -> Terms:
    return CompiledTerms(problem) if problem.device is None else DeviceTerms(problem, problem.device)


class CompiledTerms:
    """On this CPU, two threads where it is large."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._large = problem.weight.size > LARGE

    def evaluate(self, state: State, eps: float, anew: bool = False) -> tuple[Array, float]:
        depth, cost = state.depth.copy(), np.empty(len(self._problem.images))
        arrays = self._arrays(state)
        ranges(lambda a, b: fit_depths(*arrays, depth, eps, DEPTH_ROUNDS, anew, cost, a, b), len(cost), self._large)
        return depth, float(cost.sum())

    def model(self, state: State, eps: float, alpha: float) -> Model:
        sides, count = self._problem.weight.shape
        images = len(self._problem.images)
        products, gradient = np.empty((sides, 8, 8)), np.empty((sides, 8))
        shared, slope = np.empty((EDGE * sides + images, count), np.float32), np.empty((images, count))
        first, gram_start = _rows(self._problem)
        gram, lean = np.empty(gram_start[-1]), np.empty(len(shared))
        arrays = self._arrays(state)

        def work(begin: int, end: int) -> None:
            linearise(*arrays, state.depth, eps, alpha, products, gradient, shared, slope, begin, end)
            for n in range(begin, end):
                rows = shared[first[n] : first[n + 1]]
                own = torch.from_numpy(rows)
                gram[gram_start[n] : gram_start[n + 1]] = (own @ own.T).flatten().numpy()
                lean[first[n] : first[n + 1]] = rows @ slope[n]

        ranges(work, images, self._large)
        return Model(products, gradient, gram, lean)

    def _arrays(self, state: State) -> tuple[NDArray[np.generic], ...]:
        problem = self._problem
        fixed = (problem.start, problem.pair, problem.points, problem.weight, problem.pixels)
        return (*fixed, state.rotation, state.position, state.focal, state.linear, state.pair_translation)


class DeviceTerms:
    """By the kernels on a GPU, or their twins on any device. The points go there once; poses, pairs and depths with every call.

    Never run on a GPU yet; tried on the CPU, through the twins.
    """

    def __init__(self, problem: Problem, device: torch.device | str) -> None:
        self._device = device
        self._sides = sides_of(problem, device)
        self._first, self._gram_start = _rows(problem)
        self._image_of_row = torch.as_tensor(np.repeat(np.arange(len(problem.images)), np.diff(self._first)), device=device)

    def evaluate(self, state: State, eps: float, anew: bool = False) -> tuple[Array, float]:
        depth, cost = kernels.fit_depths(self._sides, scene_of(state, self._device), self._depth(state), eps, DEPTH_ROUNDS, anew)
        return _array(depth), float(_array(cost).sum())

    def model(self, state: State, eps: float, alpha: float) -> Model:
        found = kernels.linearise(self._sides, scene_of(state, self._device), self._depth(state), eps, alpha)
        products, gradient, shared, slope = found
        gram = shared.new_empty(int(self._gram_start[-1]))
        for n in range(len(slope)):
            own = shared[self._first[n] : self._first[n + 1]]
            torch.mm(own, own.T, out=gram[self._gram_start[n] : self._gram_start[n + 1]].view(len(own), len(own)))
        lean = (shared * slope[self._image_of_row]).sum(1)
        return Model(_array(products), _array(gradient), _array(gram), _array(lean))

    def _depth(self, state: State) -> torch.Tensor:
        return torch.as_tensor(state.depth, device=self._device)


def sides_of(problem: Problem, device: torch.device | str) -> kernels.Sides:
    fixed = (problem.start, problem.image, problem.pair, problem.points, problem.weight, problem.pixels)
    return kernels.Sides(*(torch.as_tensor(np.ascontiguousarray(values), device=device) for values in fixed))


def scene_of(state: State, device: torch.device | str) -> kernels.Scene:
    """In one small upload."""
    images, pairs = len(state.focal), len(state.pair_scale)
    cameras = np.concatenate([state.rotation.reshape(images, 9), state.position, state.focal[:, None]], axis=1)
    linear = np.concatenate([state.linear.reshape(pairs, 9), state.pair_translation], axis=1)
    both = torch.as_tensor(np.concatenate([cameras.ravel(), linear.ravel()]), device=device)
    return kernels.Scene(both[: cameras.size].view(images, 13), both[cameras.size :].view(pairs, 12))


def _rows(problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[N + 1] each: where the images' rows of `shared` and their products' entries begin."""
    first = EDGE * problem.start + np.arange(len(problem.images) + 1)
    inner = np.diff(first)
    return first, np.concatenate([[0], np.cumsum(inner * inner)]).astype(np.int64)


def _array(values: torch.Tensor) -> Array:
    return np.asarray(values.double().cpu().numpy())
