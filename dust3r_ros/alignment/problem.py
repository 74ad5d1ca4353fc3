"""The alignment problem on a few well spread, confident pixels of each image, laid out so that all images are worked on at once.

N images, E pairs, K: the most pairs that an image is in, S pixels an image. An image with fewer pairs is padded with weight 0. Pixels come
last: coordinates are planes, which is faster than triples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dust3r_ros.estimators import PairPrediction

KNOWN = 1.0 + 1e-6  # a confidence of exactly 1 says that nothing is known
CANDIDATES = 4  # pixels drawn in each cell, of which the most confident stays


@dataclass(eq=False)
class Problem:
    """What does not change while it is solved. float64 unless said otherwise."""

    images: tuple[int, ...]
    edge: Tensor  # [N, K] int64: which pair; 0 where padded
    points: Tensor  # [N, K, 3, S] in the pair's own frame
    weight: Tensor  # [N, K, S] log confidence over the number of pixels and pairs; 0 where padded or nothing is known
    pixels: Tensor  # [N, 2, S] (u - cx, v - cy)
    pairs: int

    @property
    def known(self) -> Tensor:
        """[N, S] bool: whether anything at all is known of the pixel."""
        return (self.weight > 0).any(1)


@dataclass(eq=False)
class State:
    """What is solved for. float64."""

    rotation: Tensor  # [N, 3, 3] camera to world
    position: Tensor  # [N, 3]
    focal: Tensor  # [N] pixels
    edge_rotation: Tensor  # [E, 3, 3]
    edge_translation: Tensor  # [E, 3]
    edge_scale: Tensor  # [E]
    depth: Tensor  # [N, S] along z

    def rays(self, problem: Problem) -> Tensor:
        """[N, 3, S] in the camera, z = 1."""
        xy = problem.pixels / self.focal[:, None, None]
        return torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1)

    def directions(self, problem: Problem) -> Tensor:
        """[N, 3, S] in the world, one unit of depth long along z."""
        return self.rotation @ self.rays(problem)

    def targets(self, problem: Problem) -> Tensor:
        """[N, K, 3, S] where each pair puts each pixel in the world."""
        linear = (self.edge_scale[:, None, None] * self.edge_rotation)[problem.edge]
        return linear @ problem.points + self.edge_translation[problem.edge][..., None]


def choose_pixels(confidence: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """`count` pixels [S, 2] int64 (row, column), one in each cell of a grid: the most confident of a few drawn at random.

    confidence [H, W]: what all pairs together say. A cell may be empty handed; its pixel then counts for nothing.
    """
    height, width = confidence.shape
    rows = max(1, round((count * height / width) ** 0.5))
    columns = max(1, -(-count // rows))
    v = (np.arange(rows)[:, None, None] + rng.random((rows, columns, CANDIDATES))) * (height / rows)
    u = (np.arange(columns)[None, :, None] + rng.random((rows, columns, CANDIDATES))) * (width / columns)
    row, column = torch.from_numpy(v.astype(np.int64).clip(0, height - 1)), torch.from_numpy(u.astype(np.int64).clip(0, width - 1))
    best = confidence[row, column].argmax(-1, keepdim=True)
    return torch.stack([row.gather(-1, best), column.gather(-1, best)], dim=-1).reshape(-1, 2)[:count]


def build_problem(
    predictions: Sequence[PairPrediction],
    images: Sequence[int],
    principal_points: Mapping[int, tuple[float, float]],
    pixels_each: int,
    seed: int,
) -> tuple[Problem, dict[int, Tensor]]:
    """The problem of `predictions`, all of whose images are among `images`; and the pixels chosen, [S, 2] (row, column), by image."""
    at = {image: n for n, image in enumerate(images)}
    sides: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in images]
    for e, p in enumerate(predictions):
        sides[at[p.i]].append((e, p.points_i, p.confidence_i))
        sides[at[p.j]].append((e, p.points_j, p.confidence_j))
    rng = np.random.default_rng(seed)
    most, count = max(map(len, sides)), pixels_each
    edge = torch.zeros(len(images), most, dtype=torch.int64)
    points = torch.zeros(len(images), most, 3, count, dtype=torch.float64)
    weight = torch.zeros(len(images), most, count, dtype=torch.float64)
    pixels = torch.zeros(len(images), 2, count, dtype=torch.float64)
    chosen: dict[int, Tensor] = {}
    for n, (image, seen) in enumerate(zip(images, sides, strict=True)):
        confidence = torch.stack([c for _, _, c in seen])
        picked = choose_pixels(torch.where(confidence > KNOWN, confidence.log(), 0.0).sum(0), count, rng)
        chosen[image], size = picked, len(picked)
        height, width = confidence.shape[1:]
        cx, cy = principal_points.get(image, (width / 2, height / 2))
        pixels[n, :, :size] = (picked.flip(1) - torch.tensor([cx, cy], dtype=torch.float64)).T
        row, column = picked.unbind(1)
        sampled = confidence[:, row, column].double()
        for k, (e, own_points, _) in enumerate(seen):
            edge[n, k] = e
            points[n, k, :, :size] = own_points[row, column].T.double()
        weight[n, : len(seen), :size] = torch.where(sampled > KNOWN, sampled.log(), 0.0) / (size * len(predictions))
    finite = torch.isfinite(points).all(-2)
    return Problem(tuple(images), edge, points.nan_to_num(0.0), torch.where(finite, weight, 0.0), pixels, len(predictions)), chosen
