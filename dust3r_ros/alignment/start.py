"""Where the refinement starts: the spanning tree's poses and points, and each pair's similarity onto them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dust3r_ros.alignment.chain import PlacedImage
from dust3r_ros.alignment.problem import Problem, State

ROUNDS = 3  # reweightings of each pair's similarity


def start(problem: Problem, placed: Mapping[int, PlacedImage], chosen: Mapping[int, Tensor]) -> State:
    """The tree's state on the chosen pixels ([S, 2] row, column, by image)."""
    images = [placed[image] for image in problem.images]
    pose = torch.from_numpy(np.stack([image.pose for image in images]))
    world = torch.zeros(len(images), problem.pixels.shape[2], 3, dtype=torch.float64)
    for n, (number, image) in enumerate(zip(problem.images, images, strict=True)):
        row, column = chosen[number].unbind(1)
        world[n, : len(row)] = image.points[row, column].double()
    rotation, position = pose[:, :3, :3].contiguous(), pose[:, :3, 3].contiguous()
    depth = ((world - position[:, None]) * rotation[:, None, :, 2]).sum(-1)
    edge_rotation, edge_translation, edge_scale = fitted_pairs(problem, world)
    focal = torch.tensor([image.focal for image in images], dtype=torch.float64)
    return State(rotation, position, focal, edge_rotation, edge_translation, edge_scale, depth)


def fitted_pairs(problem: Problem, world: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair's similarity, at once, that carries its points onto world points [N, S, 3]: Umeyama's, reweighted for the plain norm."""
    n, k, _, s = problem.points.shape
    edge = problem.edge[..., None].expand(n, k, s).reshape(-1)
    source, target = problem.points.transpose(2, 3).reshape(-1, 3), world[:, None].expand(n, k, s, 3).reshape(-1, 3)
    weight = problem.weight.reshape(-1)

    def total(values: Tensor) -> Tensor:
        return torch.zeros(problem.pairs, *values.shape[1:], dtype=torch.float64).index_add_(0, edge, values)

    say = weight
    for _ in range(1 + ROUNDS):
        mass = total(say).clamp(min=1e-300)
        source_mean, target_mean = total(say[:, None] * source) / mass[:, None], total(say[:, None] * target) / mass[:, None]
        a, b = source - source_mean[edge], target - target_mean[edge]
        covariance = total(say[:, None, None] * b[:, :, None] * a[:, None, :]) / mass[:, None, None]
        spread = (total(say * (a * a).sum(-1)) / mass).clamp(min=1e-300)
        u, values, vt = torch.linalg.svd(covariance)
        sign = torch.ones_like(values)
        sign[:, 2] = torch.linalg.det(u @ vt).sign()
        rotation = (u * sign[:, None]) @ vt
        scale = ((values * sign).sum(-1) / spread).clamp(min=1e-9)
        translation = target_mean - scale[:, None] * (rotation @ source_mean[..., None])[..., 0]
        moved = scale[edge, None] * (rotation[edge] @ source[..., None])[..., 0] + translation[edge]
        distance = (moved - target).norm(dim=-1)
        typical = (total(weight * distance) / total(weight).clamp(min=1e-300)).clamp(min=1e-12)
        say = weight / (distance + 0.1 * typical[edge])
    return rotation, translation, scale
