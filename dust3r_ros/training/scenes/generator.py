"""Batches of image pairs of generated scenes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dust3r_ros.training.pairs import PairBatch, View
from dust3r_ros.training.scenes.atlas import Atlas
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
from dust3r_ros.training.scenes.composition import composed
from dust3r_ros.training.scenes.config import SPLITS, PairsConfig, SceneError
from dust3r_ros.training.scenes.overlap import seen
from dust3r_ros.training.scenes.rendering import Renderer
from dust3r_ros.training.scenes.sensor import NUMBERS, exposed
from dust3r_ros.training.scenes.solids import Scenes
from dust3r_ros.training.scenes.standpoints import Standpoints

COARSE = (24, 18)  # columns and rows of the depth by which cameras are chosen


class GeneratedPairs:
    """A `PairSource` of scenes made up for the step: `batch(step)` depends on configuration, seed, split and step alone.

    Training and held-out batches are drawn from numbers that never meet: the split is part of what seeds each generator. Scenes are drafted
    on the host (the same on every device), cast, shaded and degraded on `device`. Has not run on a GPU yet.
    """

    def __init__(self, config: PairsConfig, seed: int = 0, device: torch.device | str = "cpu", split: str = "train") -> None:
        if split not in SPLITS:
            raise SceneError(f"split is {split!r}: take {' or '.join(SPLITS)}")
        self.config, self.seed, self.split, self.device = config, seed, split, torch.device(device)
        self.atlas = Atlas.of(config.scene, self.device)
        self.renderer = Renderer(self.atlas, config.width, config.height, config.compile)

    @torch.no_grad()
    def batch(self, step: int) -> PairBatch:
        """The pairs of step `step` >= 0."""
        config, rng = self.config, np.random.default_rng([self.seed, SPLITS.index(self.split), step])
        scene, stand = composed(config.scene, self.atlas.groups, config.scenes, rng)
        scene = scene.to(self.device)
        count, views = config.scenes, 1 + config.pairs_per_scene

        def numbers(*shape: int) -> Tensor:
            return torch.from_numpy(rng.random(shape, np.float32)).to(self.device, non_blocking=True)

        low, high = (np.deg2rad(value) for value in config.field_of_view)
        first_angle = low + (high - low) * numbers(count, 1)
        own_angle = low + (high - low) * numbers(count, config.candidates)
        angle = torch.where(numbers(count, config.candidates) < config.same_camera, first_angle, own_angle)
        shift = (numbers(count, 1 + config.candidates, 2) - 0.5) * 0.04 * min(config.width, config.height)
        intrinsics = intrinsics_of(config.width, config.height, torch.cat([first_angle, angle], 1), shift)

        first, coarse_depth, near = self._first(scene, stand, intrinsics[:, :1], rolls(numbers(count, stand.positions.shape[1])))
        coarse = shrunk(intrinsics, config.width / COARSE[0], config.height / COARSE[1])
        grid = pixel_grid(*COARSE, self.device)
        direction = rays(coarse[:, 0], first, grid)
        bounds = tuple(torch.from_numpy(value).float().to(self.device) for value in (stand.low, stand.high))
        second = second_poses(numbers(count, config.candidates, SECOND_NUMBERS), first, coarse_depth, direction, *bounds)
        depths, bad = self._looked(scene, coarse[:, 1:], second, 0.6 * near)
        overlap = _coarse_overlap(coarse, torch.cat([first[:, None], second], 1), torch.cat([coarse_depth[:, None], depths], 1))
        lowest, highest = config.overlap
        slots = torch.from_numpy(rng.permutation(count * config.pairs_per_scene).reshape(count, -1)).to(self.device)
        wanted = lowest + (highest - lowest) * (slots + numbers(count, config.pairs_per_scene)) / slots.numel()
        chosen = _chosen(overlap, bad, wanted, lowest)

        pose = torch.cat([first[:, None], second.gather(1, chosen[..., None, None].expand(-1, -1, 4, 4))], 1)
        intrinsics = torch.cat([intrinsics[:, :1], intrinsics[:, 1:].gather(1, chosen[..., None].expand(-1, -1, 4))], 1)
        index = torch.arange(count, device=self.device).repeat_interleave(views)
        light, depth = self.renderer.render(scene, index, intrinsics.flatten(0, 1), pose.flatten(0, 1))
        return self._paired(rng, light, depth, intrinsics.flatten(0, 1), pose.flatten(0, 1))

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
        found = self.renderer.look(scene, index, intrinsics.flatten(0, 1), pose.flatten(0, 1), pixel_grid(*COARSE, self.device))
        depth, solid = (value.unflatten(0, (scenes, cameras)) for value in found)
        return depth, badness(scene, pose[..., :3, 3], depth, solid, near)

    def _paired(self, rng: np.random.Generator, light: Tensor, depth: Tensor, intrinsics: Tensor, pose: Tensor) -> PairBatch:
        config = self.config
        views = 1 + config.pairs_per_scene
        pair = torch.arange(config.pairs, device=self.device)
        first = pair // config.pairs_per_scene * views
        second = first + 1 + pair % config.pairs_per_scene
        turned = torch.from_numpy(rng.random(config.pairs) < 0.5).to(self.device)
        order = torch.cat([torch.where(turned, second, first), torch.where(turned, first, second)])
        random = torch.from_numpy(rng.standard_normal((2 * config.pairs, NUMBERS), np.float32)).to(self.device)
        noise = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        images = exposed(light[order], config.effects, random, noise)
        valid = torch.isfinite(depth)[order]
        depth = torch.where(valid, depth[order], 0.0)
        sides = zip(*(value.chunk(2) for value in (images, depth, valid, intrinsics[order], pose[order])), strict=True)
        return PairBatch(*(View(*side) for side in sides))


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
