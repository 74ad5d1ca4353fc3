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

CHUNK = 4096  # pixels worked on together: what a core's own cache holds
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

    def one(n: int) -> tuple[NDArray[np.float32], NDArray[np.float32], Array]:
        seen, to_camera = sides[images[n]], state.rotation[n].T
        pairs = [e for e, _, _ in seen]
        transforms = np.empty((len(seen), 3, 4), np.float32)
        transforms[:, :, :3] = to_camera @ linear[pairs]
        transforms[:, :, 3] = (state.pair_translation[pairs] - state.position[n]) @ to_camera.T
        height, width = seen[0][2].shape
        centre = principal_points.get(images[n], (width / 2, height / 2))
        work = _image if device is None else _image_on_device
        return work([(points, confidence) for _, points, confidence in seen], transforms, centre, float(state.focal[n]), rounds)

    # A GPU's work is one queue: threads would not help.
    found = each(lambda k: one(wanted[k]), len(wanted)) if device is None else [one(n) for n in wanted]
    pair_cost = np.zeros(len(predictions))
    for n, (depth, _, cost) in zip(wanted, found, strict=True):
        pair_cost[[e for e, _, _ in sides[images[n]]]] += cost / depth.size
    return Dense([torch.from_numpy(d) for d, _, _ in found], [torch.from_numpy(c) for _, c, _ in found], pair_cost)


def _image(
    sides: list[tuple[Tensor, Tensor]],
    transforms: NDArray[np.float32],
    centre: tuple[float, float],
    focal: float,
    rounds: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], Array]:
    """[H, W] depth and largest confidence, and each side's summed cost."""
    height, width = sides[0][1].shape
    across, down = _rays(height, width, centre, focal)
    u, v = np.tile(across, height), np.repeat(down, width)
    square = u * u + v * v + 1
    flat = [
        (points.reshape(-1, 3).float().contiguous().cpu().numpy(), confidence.reshape(-1).float().contiguous().cpu().numpy())
        for points, confidence in sides
    ]
    depth, most, cost = np.empty(height * width, np.float32), np.ones(height * width, np.float32), np.zeros(len(sides))
    a, b, w = (np.empty((len(sides), CHUNK), np.float32) for _ in range(3))
    known = np.float32(KNOWN)
    for begin in range(0, height * width, CHUNK):
        part = slice(begin, min(begin + CHUNK, height * width))
        count = part.stop - begin
        if count < CHUNK:
            a, b, w = (np.empty((len(sides), count), np.float32) for _ in range(3))
        for k, (points, confidence) in enumerate(flat):
            dense_side(points[part], confidence[part], transforms[k], u[part], v[part], known, a[k], b[k], w[k], most[part])
        dense_depths(a, b, w, square[part], rounds, depth[part], cost)
    return depth.reshape(height, width), most.reshape(height, width), cost


def _image_on_device(
    sides: list[tuple[Tensor, Tensor]],
    transforms: NDArray[np.float32],
    centre: tuple[float, float],
    focal: float,
    rounds: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], Array]:
    """As `_image`, where the sides are."""
    height, width = sides[0][1].shape
    u, v = _rays(height, width, centre, focal)
    points, confidences = [own for own, _ in sides], [confidence for _, confidence in sides]
    rays = torch.from_numpy(u), torch.from_numpy(v)
    found = kernels.dense_depths(
        points, confidences, torch.from_numpy(transforms), rays, torch.from_numpy(rounds), float(np.float32(KNOWN))
    )
    depth, most, cost = (values.cpu().numpy() for values in found)
    return depth, most, cost


def _rays(height: int, width: int, centre: tuple[float, float], focal: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """u [W] and v [H]: (u, v, 1) goes through a pixel."""
    across, down = (np.arange(width) - centre[0]) / focal, (np.arange(height) - centre[1]) / focal
    return across.astype(np.float32), down.astype(np.float32)
