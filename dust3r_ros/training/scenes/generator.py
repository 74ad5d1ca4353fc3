"""Batches of image pairs of generated scenes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dust3r_ros.training.pairs import PairBatch, View
from dust3r_ros.training.scenes.atlas import Atlas
from dust3r_ros.training.scenes.composition import composed
from dust3r_ros.training.scenes.config import SPLITS, PairsConfig, SceneError
from dust3r_ros.training.scenes.meshes import load_meshes
from dust3r_ros.training.scenes.rendering import Renderer
from dust3r_ros.training.scenes.sensor import CHANCES, NUMBERS, exposed
from dust3r_ros.training.scenes.viewpoints import Viewpoints


class GeneratedPairs:
    """A `PairSource` of scenes made up for the step: `batch(step)` depends on configuration, seed, split and step alone.

    Training and held-out batches are drawn from numbers that never meet: the split is part of what seeds each generator. Scenes are drafted
    on the host (the same on every device), cast, shaded and degraded on `device`. Has not run on a GPU yet.
    """

    def __init__(self, config: PairsConfig, seed: int = 0, device: torch.device | str = "cpu", split: str = "train") -> None:
        if split not in SPLITS:
            raise SceneError(f"split is {split!r}: take {' or '.join(SPLITS)}")
        if seed < 0:
            raise SceneError(f"seed is {seed}: take 0 or more")
        self.config, self.seed, self.split, self.device = config, seed, split, torch.device(device)
        self.atlas = Atlas.of(config.scene, self.device)
        self.meshes = None if config.scene.meshes is None else load_meshes(config.scene.meshes, config.scene.mesh_triangles)
        self.renderer = Renderer(self.atlas, config.width, config.height, config.compile)
        self.viewpoints = Viewpoints(config, self.renderer)

    @torch.no_grad()
    def batch(self, step: int) -> PairBatch:
        """The pairs of step `step` >= 0."""
        config, rng = self.config, np.random.default_rng([self.seed, SPLITS.index(self.split), step])
        parts = composed(config.scene, self.atlas.groups, self.meshes, config.scenes, step, rng)
        slots = rng.permutation(config.scenes * config.pairs_per_scene).reshape(config.scenes, -1)
        lowest, highest = config.overlap
        wanted = (lowest + (highest - lowest) * (slots + rng.random(slots.shape)) / slots.size).astype(np.float32)
        views, done = [], 0
        for scene, stand in parts:
            scene = scene.to(self.device)
            count = len(stand.near)
            intrinsics, pose = self.viewpoints.choose(scene, stand, wanted[done : done + count], rng)
            index = torch.arange(count, device=self.device).repeat_interleave(1 + config.pairs_per_scene)
            views.append((*self.renderer.render(scene, index, intrinsics, pose), intrinsics, pose))
            done += count
        return self._paired(rng, *(torch.cat(values) for values in zip(*views, strict=True)))

    def _paired(self, rng: np.random.Generator, light: Tensor, depth: Tensor, intrinsics: Tensor, pose: Tensor) -> PairBatch:
        config = self.config
        views = 1 + config.pairs_per_scene
        pair = torch.arange(config.pairs, device=self.device)
        first = pair // config.pairs_per_scene * views
        second = first + 1 + pair % config.pairs_per_scene
        turned = torch.from_numpy(rng.random(config.pairs) < 0.5).to(self.device)
        order = torch.cat([torch.where(turned, second, first), torch.where(turned, first, second)])
        normal = torch.from_numpy(rng.standard_normal((2 * config.pairs, NUMBERS), np.float32)).to(self.device)
        uniform = torch.from_numpy(rng.random((2 * config.pairs, CHANCES), np.float32)).to(self.device)
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(len(order), *light.shape[1:], device=self.device, generator=generator)
        images = exposed(light[order], config.effects, normal, uniform, noise)
        valid = torch.isfinite(depth)[order]
        depth = torch.where(valid, depth[order], 0.0)
        sides = zip(*(value.chunk(2) for value in (images, depth, valid, intrinsics[order], pose[order])), strict=True)
        return PairBatch(*(View(*side) for side in sides))
