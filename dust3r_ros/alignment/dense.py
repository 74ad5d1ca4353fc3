"""From a solved scene to every pixel's depth, one image at a time, and the objective over all pixels with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dust3r_ros.alignment.compiled_dense import dense_depths, dense_side
from dust3r_ros.alignment.problem import KNOWN, Array, State, device_of
from dust3r_ros.alignment.workers import each
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.kernels import alignment as kernels

CHUNK = 8192  # pixels worked on together: what a core's own cache holds
PART = 4 * CHUNK  # pixels that a thread takes at once: few enough that both have as many
# Round by round: the norm's smoothing, of the median depth, and how far the step goes from reweighting (0) to Newton's (1).
ROUNDS = ((0.1, 0.0), (0.03, 0.0), (0.015, 0.5), (7e-3, 0.6), (3e-3, 0.6), (1e-3, 0.6), (3e-4, 0.6), (3e-4, 0.6))


@dataclass(frozen=True, eq=False)
class Dense:
    depths: list[Tensor]  # [H, W] float32 along z, 0 where nothing is known
    confidences: list[Tensor]  # [H, W] float32 >= 1, the largest that any pair has
    pair_cost: Array  # [E] the sum over both views of the mean of log confidence times distance


def solve_dense(
    predictions: Sequence[PairPrediction],
    images: Sequence[int],
    principal_points: Mapping[int, tuple[float, float]],
    state: State,
    only: Sequence[int] | None = None,
) -> Dense:
    """The depth of every pixel that any pair knows, given everything else. Deterministic, whatever the number of threads.

    `only`: positions of the images that are wanted; the costs of the others are missing then.
    Where all predictions are on one GPU, a kernel does it there; what comes back is on the CPU. The kernel never ran yet, its twin did.
    """
    device = device_of(predictions)
    wanted = list(range(len(images))) if only is None else list(only)
    sides: dict[int, list[tuple[int, Tensor, Tensor]]] = {image: [] for image in images}
    for e, p in enumerate(predictions):
        sides[p.i].append((e, p.points_i, p.confidence_i))
        sides[p.j].append((e, p.points_j, p.confidence_j))
    rounds = np.array(ROUNDS, np.float32)
    rounds[:, 0] = (rounds[:, 0] * float(np.median(state.depth))) ** 2
    linear = state.linear

    def view(image: int) -> _View:
        n, seen = images.index(image), sides[image]
        pairs, to_camera = [e for e, _, _ in seen], state.rotation[n].T
        transforms = np.empty((len(seen), 3, 4), np.float32)
        transforms[:, :, :3] = to_camera @ linear[pairs]
        transforms[:, :, 3] = (state.pair_translation[pairs] - state.position[n]) @ to_camera.T
        height, width = seen[0][2].shape
        centre = principal_points.get(image, (width / 2, height / 2))
        return _View([points for _, points, _ in seen], [sure for _, _, sure in seen], transforms, centre, float(state.focal[n]), rounds)

    views = [view(images[n]) for n in wanted]
    found = _on_cpu(views) if device is None else [_on_device(one) for one in views]
    pair_cost = np.zeros(len(predictions))
    for n, (depth, _, cost) in zip(wanted, found, strict=True):
        pair_cost[[e for e, _, _ in sides[images[n]]]] += cost / depth.size
    return Dense([torch.from_numpy(d) for d, _, _ in found], [torch.from_numpy(c) for _, c, _ in found], pair_cost)


Solved = tuple[NDArray[np.float32], NDArray[np.float32], Array]  # [H, W] depth and largest confidence, and each side's summed cost


@dataclass(frozen=True, eq=False)
class _View:
    """One image, and what each of its pairs says of it."""

    points: list[Tensor]  # [H, W, 3] each
    confidence: list[Tensor]  # [H, W] each
    transforms: NDArray[np.float32]  # [K, 3, 4] from each pair's frame to the camera's
    centre: tuple[float, float]
    focal: float
    rounds: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.confidence[0].shape
        return height, width

    def rays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """u [W] and v [H]: (u, v, 1) goes through a pixel."""
        height, width = self.shape
        across, down = (np.arange(width) - self.centre[0]) / self.focal, (np.arange(height) - self.centre[1]) / self.focal
        return across.astype(np.float32), down.astype(np.float32)


def _on_cpu(views: Sequence[_View]) -> list[Solved]:
    """Part by part, two at a time; the parts do not depend on the number of threads, so neither do the sums."""
    flat = [
        (
            [points.reshape(-1, 3).float().contiguous().cpu().numpy() for points in view.points],
            [confidence.reshape(-1).float().contiguous().cpu().numpy() for confidence in view.confidence],
            np.empty(view.confidence[0].numel(), np.float32),
            np.empty(view.confidence[0].numel(), np.float32),
        )
        for view in views
    ]
    parts = [(n, begin) for n, view in enumerate(views) for begin in range(0, view.confidence[0].numel(), PART)]

    def part(k: int) -> Array:
        n, begin = parts[k]
        return _part(views[n], *flat[n], begin, min(begin + PART, len(flat[n][2])))

    costs = each(part, len(parts))
    found: list[Solved] = []
    for n, (view, (_, _, depth, most)) in enumerate(zip(views, flat, strict=True)):
        own = [cost for (of, _), cost in zip(parts, costs, strict=True) if of == n]
        found.append((depth.reshape(view.shape), most.reshape(view.shape), np.sum(own, axis=0)))
    return found


def _part(
    view: _View,
    points: list[NDArray[np.float32]],
    confidence: list[NDArray[np.float32]],
    depth: NDArray[np.float32],
    most: NDArray[np.float32],
    begin: int,
    end: int,
) -> Array:
    """Pixels `begin` to `end` of `depth` and `most`, row by row; each side's summed cost over them."""
    across, down = view.rays()
    rows, columns = np.divmod(np.arange(begin, end), len(across))
    u, v = across[columns], down[rows]
    square = u * u + v * v + 1
    most[begin:end] = 1
    cost, known = np.zeros(len(points)), np.float32(KNOWN)
    a, b, w = (np.empty((len(points), CHUNK), np.float32) for _ in range(3))
    for first in range(begin, end, CHUNK):
        chunk = slice(first, min(first + CHUNK, end))
        here = slice(first - begin, chunk.stop - begin)
        if chunk.stop - first < CHUNK:
            a, b, w = (np.empty((len(points), chunk.stop - first), np.float32) for _ in range(3))
        ahead, beside, largest = u[here], v[here], most[chunk]
        for k, (own, sure) in enumerate(zip(points, confidence, strict=True)):
            dense_side(own[chunk], sure[chunk], view.transforms[k], ahead, beside, known, a[k], b[k], w[k], largest)
        dense_depths(a, b, w, square[here], view.rounds, depth[chunk], cost)
    return cost


def _on_device(view: _View) -> Solved:
    """Where the predictions are. A GPU's work is one queue: threads would not help."""
    rays = [torch.from_numpy(values) for values in view.rays()]
    transforms, rounds = torch.from_numpy(view.transforms), torch.from_numpy(view.rounds)
    found = kernels.dense_depths(view.points, view.confidence, transforms, (rays[0], rays[1]), rounds, float(np.float32(KNOWN)))
    depth, most, cost = (values.cpu().numpy() for values in found)
    return depth, most, cost
