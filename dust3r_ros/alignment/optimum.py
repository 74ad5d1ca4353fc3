"""From a spanning tree's scene to the one of least objective: poses and focal lengths on chosen pixels, then every pixel's depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dust3r_ros.alignment.chain import KNOWN, PlacedImage
from dust3r_ros.alignment.depths import along_rays, refined, weighted_median
from dust3r_ros.alignment.known_poses import pose_similarity
from dust3r_ros.alignment.linear_system import make_layout
from dust3r_ros.alignment.problem import Problem, State, build_problem
from dust3r_ros.alignment.refine import COARSE, FINE, Progress, refine
from dust3r_ros.alignment.start import start
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity, nearest_rotation, pose_matrix

COARSE_PIXELS, FINE_PIXELS = 100, 400
DENSE_ROUNDS = 5
DENSE_EPS = 1e-3  # of the median depth


@dataclass(frozen=True, eq=False)
class Optimum:
    """Of the images that were given, in their order."""

    poses: NDArray[np.float64]  # [N, 4, 4]
    focals: NDArray[np.float64]  # [N]
    depths: list[Tensor]  # N of [H, W] float32, 0 where nothing is known
    similarities: list[Similarity]  # of each prediction
    history: list[Progress]


def optimum(
    predictions: Sequence[PairPrediction],
    placed: Mapping[int, PlacedImage],
    focals: Mapping[int, float],
    poses: Mapping[int, NDArray[np.float64]],
    principal_points: Mapping[int, tuple[float, float]],
    shared_focal: bool = False,
) -> Optimum:
    """`predictions` among the images of `placed` (sorted); the rest as for `align`. Best with `one_thread`."""
    images = tuple(placed)
    at = {image: n for n, image in enumerate(images)}
    known = [at[image] for image in images if image in poses]
    fixed_focal = np.array([image in focals for image in images])
    group = np.where(fixed_focal, np.arange(len(images)), len(images)) if shared_focal else np.arange(len(images))
    first = np.array([min(at[p.i], at[p.j]) for p in predictions])
    coarse, chosen = build_problem(predictions, images, principal_points, COARSE_PIXELS, seed=0)
    state = start(coarse, placed, chosen)
    if shared_focal and not fixed_focal.all():
        own = torch.from_numpy(~fixed_focal)
        state.focal[own] = state.focal[own].median()
    layout = make_layout(coarse, first, np.arange(len(images)) == 0, fixed_focal, group)
    state, history = refine(coarse, state, layout, COARSE, free_scale=False)
    fine, _ = build_problem(predictions, images, principal_points, FINE_PIXELS, seed=1)
    state, more = refine(fine, replace(state, depth=_median_depth(fine, state)), layout, FINE, free_scale=False)
    history += more
    if known:
        # Only now, when the scene has its shape: from the tree's the size would come slowly.
        given = np.stack([poses[images[n]] for n in known])
        state = in_frame(state, pose_similarity(_poses(state)[known], given))
        state.rotation[known], state.position[known] = torch.from_numpy(given[:, :3, :3]), torch.from_numpy(given[:, :3, 3])
    if len(known) > 1:
        layout = make_layout(fine, first, np.isin(np.arange(len(images)), known), fixed_focal, group)
        state, more = refine(fine, state, layout, FINE, free_scale=True)
        history += more
    return Optimum(
        poses=_poses(state),
        focals=state.focal.numpy().copy(),
        depths=dense_depths(predictions, images, principal_points, state),
        similarities=[_similarity(state, e) for e in range(len(predictions))],
        history=history,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Small products on several threads wait for each other: on a busy machine ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_frame(state: State, frame: Similarity) -> State:
    """The whole scene moved."""
    rotation, translation = torch.from_numpy(frame.rotation.copy()), torch.from_numpy(frame.translation.copy())
    return State(
        rotation=rotation @ state.rotation,
        position=frame.scale * state.position @ rotation.T + translation,
        focal=state.focal,
        edge_rotation=rotation @ state.edge_rotation,
        edge_translation=frame.scale * state.edge_translation @ rotation.T + translation,
        edge_scale=frame.scale * state.edge_scale,
        depth=frame.scale * state.depth,
    )


def dense_depths(
    predictions: Sequence[PairPrediction], images: Sequence[int], principal_points: Mapping[int, tuple[float, float]], state: State
) -> list[Tensor]:
    """The depth along z of every pixel that any pair knows, given everything else: [H, W] float32, 0 elsewhere. One image at a time."""
    eps = DENSE_EPS * float(state.depth[state.depth > 0].median())
    depths = []
    for n, image in enumerate(images):
        seen = [(e, p.points_i, p.confidence_i) for e, p in enumerate(predictions) if p.i == image]
        seen += [(e, p.points_j, p.confidence_j) for e, p in enumerate(predictions) if p.j == image]
        height, width = seen[0][2].shape
        cx, cy = principal_points.get(image, (width / 2, height / 2))
        v, u = torch.meshgrid(torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32), indexing="ij")
        # In the image's own camera, where a ray is (x, y, 1).
        rays = torch.stack([(u - cx) / float(state.focal[n]), (v - cy) / float(state.focal[n]), torch.ones_like(u)]).flatten(1)
        to_camera = state.rotation[n].T
        points, weight = [], []
        for e, own_points, confidence in seen:
            linear = (state.edge_scale[e] * to_camera @ state.edge_rotation[e]).float()
            offset = (to_camera @ (state.edge_translation[e] - state.position[n])).float()
            flat, known = own_points.reshape(-1, 3), (confidence > KNOWN).flatten()
            finite = torch.isfinite(flat).all(-1)
            points.append(torch.addmm(offset[:, None], linear, flat.where(finite[:, None], 0.0).T))
            weight.append(torch.where(known & finite, confidence.flatten().log(), 0.0))
        a, b, square = along_rays(torch.stack(points), torch.zeros(3), rays)
        weights = torch.stack(weight)
        depth = refined(weighted_median(a, weights), a, b, weights, square, eps, DENSE_ROUNDS)
        depths.append(depth.clamp(min=0.0).view(height, width))
    return depths


def _poses(state: State) -> NDArray[np.float64]:
    """[N, 4, 4]"""
    turned = state.rotation.numpy()
    return np.stack([pose_matrix(nearest_rotation(r), t) for r, t in zip(turned, state.position.numpy(), strict=True)])


def _median_depth(problem: Problem, state: State) -> Tensor:
    return torch.full((len(problem.images), problem.pixels.shape[2]), float(state.depth.median()), dtype=torch.float64)


def _similarity(state: State, e: int) -> Similarity:
    return Similarity(float(state.edge_scale[e]), nearest_rotation(state.edge_rotation[e].numpy()), state.edge_translation[e].numpy())
