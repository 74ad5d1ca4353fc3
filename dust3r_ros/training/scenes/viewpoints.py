"""Views of scenes chosen by how much they overlap: of many looked at coarsely, those whose overlap is nearest to the wanted one."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dust3r_ros.training.scenes.cameras import (
    SECOND_NUMBERS,
    badness,
    intrinsics_of,
    looking_at,
    pixel_grid,
    rays,
    rolls,
    second_poses,
    shrunk,
)
from dust3r_ros.training.scenes.config import PairsConfig
from dust3r_ros.training.scenes.overlap import seen
from dust3r_ros.training.scenes.rendering import Renderer
from dust3r_ros.training.scenes.solids import Scenes
from dust3r_ros.training.scenes.standpoints import Standpoints

LARGEST_SHIFT = 0.04  # of principal points, from one end to the other, in units of the shorter side
COARSE = (24, 18)  # columns and rows of the depth by which cameras are chosen


class Viewpoints:
    """Chooses the cameras of scenes: of each scene a first view, and others that overlap with it as wanted."""

    def __init__(self, config: PairsConfig, renderer: Renderer) -> None:
        self.config, self.renderer, self.device = config, renderer, renderer.pixels[0].device
        self.grid = pixel_grid(*COARSE, self.device)

    def choose(self, scene: Scenes, stand: Standpoints, wanted: NDArray[np.float32], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Intrinsics [S * (1 + K), 4] and poses [S * (1 + K), 4, 4]: each scene's first view, then those with overlaps `wanted` [S, K]."""
        config, count = self.config, len(stand.near)

        def numbers(*shape: int) -> Tensor:
            return torch.from_numpy(rng.random(shape, np.float32)).to(self.device, non_blocking=True)

        low, high = (np.deg2rad(value) for value in config.field_of_view)
        first_angle = low + (high - low) * numbers(count, 1)
        own_angle = low + (high - low) * numbers(count, config.candidates)
        is_same = numbers(count, config.candidates) < config.same_camera
        angle = torch.where(is_same, first_angle, own_angle)
        shift = (numbers(count, 1 + config.candidates, 2) - 0.5) * LARGEST_SHIFT * min(config.width, config.height)
        shift = torch.cat([shift[:, :1], torch.where(is_same[..., None], shift[:, :1], shift[:, 1:])], 1)
        intrinsics = intrinsics_of(config.width, config.height, torch.cat([first_angle, angle], 1), shift)

        first, coarse_depth, near = self._first(scene, stand, intrinsics[:, :1], rolls(numbers(count, stand.positions.shape[1])))
        coarse = shrunk(intrinsics, config.width / COARSE[0], config.height / COARSE[1])
        direction = rays(coarse[:, 0], first, self.grid)
        bounds = tuple(torch.from_numpy(value).float().to(self.device) for value in (stand.low, stand.high))
        second = second_poses(numbers(count, config.candidates, SECOND_NUMBERS), first, coarse_depth, direction, *bounds)
        depths, bad = self._looked(scene, coarse[:, 1:], second, 0.6 * near)
        overlap = _coarse_overlap(coarse, torch.cat([first[:, None], second], 1), torch.cat([coarse_depth[:, None], depths], 1))
        chosen = _chosen(overlap, bad, torch.from_numpy(wanted).to(self.device), config.overlap[0])
        pose = torch.cat([first[:, None], second.gather(1, chosen[..., None, None].expand(-1, -1, 4, 4))], 1)
        intrinsics = torch.cat([intrinsics[:, :1], intrinsics[:, 1:].gather(1, chosen[..., None].expand(-1, -1, 4))], 1)
        return intrinsics.flatten(0, 1), pose.flatten(0, 1)

    def _first(self, scene: Scenes, stand: Standpoints, intrinsics: Tensor, roll: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        positions, targets, near = (
            torch.from_numpy(value).float().to(self.device) for value in (stand.positions, stand.targets, stand.near)
        )
        poses = looking_at(positions, targets, roll)
        coarse = shrunk(intrinsics, self.config.width / COARSE[0], self.config.height / COARSE[1]).expand(-1, poses.shape[1], -1)
        depth, bad = self._looked(scene, coarse, poses, near)
        best = bad.argmin(1)
        rows = torch.arange(len(best), device=self.device)
        return poses[rows, best], depth[rows, best], near

    def _looked(self, scene: Scenes, intrinsics: Tensor, pose: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        """Coarse depth [S, C, N] and badness [S, C] of cameras [S, C, ...]."""
        scenes, cameras = pose.shape[:2]
        index = torch.arange(scenes, device=self.device).repeat_interleave(cameras)
        found = self.renderer.look(scene, index, intrinsics.flatten(0, 1), pose.flatten(0, 1), self.grid)
        depth, solid = (value.unflatten(0, (scenes, cameras)) for value in found)
        return depth, badness(scene, pose[..., :3, 3], depth, solid, near)


def _coarse_overlap(intrinsics: Tensor, pose: Tensor, depth: Tensor) -> Tensor:
    """Overlap [S, C] of each scene's first view with its C others; all arguments [S, 1 + C, ...], `depth` [S, 1 + C, N]."""
    others = pose.shape[1] - 1
    first = [value[:, :1].expand(-1, others, *value.shape[2:]).flatten(0, 1) for value in (intrinsics, pose, depth)]
    second = [value[:, 1:].flatten(0, 1) for value in (intrinsics, pose, depth)]
    return torch.minimum(_share(first, second), _share(second, first)).view(-1, others)


def _share(view: list[Tensor], other: list[Tensor]) -> Tensor:
    grid = pixel_grid(*COARSE, view[0].device)
    valid = torch.isfinite(view[2])
    origin, target = view[1][:, :3, 3], other[1]
    points = origin[..., None] + torch.where(valid, view[2], 1.0)[:, None] * rays(view[0], view[1], grid)
    points = (points - target[:, :3, 3, None]).transpose(1, 2) @ target[:, :3, :3]
    found = seen(points, other[2].unflatten(1, (COARSE[1], COARSE[0])), other[0]) & valid
    return found.sum(1) / valid.sum(1).clamp_min(1)


def _chosen(overlap: Tensor, bad: Tensor, wanted: Tensor, lowest: float) -> Tensor:
    """Candidates [S, K] whose overlap [S, C] comes nearest to what is `wanted` [S, K], none twice, and none bad if it can be helped."""
    cost = bad + 10 * (lowest - overlap).clamp_min(0)
    chosen = []
    for slot in wanted.unbind(1):
        best = (cost + (overlap - slot[:, None]).abs()).argmin(1)
        cost = cost.scatter(1, best[:, None], 1e3)
        chosen.append(best)
    return torch.stack(chosen, 1)
