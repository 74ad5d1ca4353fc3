"""A `PairSource` of textured planes: pairs whose geometry is in closed form, at no cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dust3r_ros.training.pairs import PairBatch, View

WAVES = 6


@dataclass(frozen=True)
class PlanePairs:
    """A slanted plane before the first camera, seen by a second one that is shifted and turned a little."""

    width: int = 64
    height: int = 48
    pairs: int = 4
    seed: int = 0
    distinct: int = 1_000_000  # after so many steps the same batches come again
    broken_from: int | None = None  # from this step on every image is NaN

    def batch(self, step: int) -> PairBatch:
        random = torch.Generator().manual_seed(1000 * self.seed + step % self.distinct)
        count = self.pairs

        def spread(*shape: int) -> Tensor:
            return 2 * torch.rand(count, *shape, generator=random) - 1

        normal = torch.cat([0.4 * spread(2), torch.ones(count, 1)], 1)
        distance = 3 + spread()
        pose = torch.eye(4).repeat(count, 1, 1)
        angle = 0.15 * spread()
        pose[:, 0, 0] = pose[:, 2, 2] = angle.cos()
        pose[:, 0, 2], pose[:, 2, 0] = angle.sin(), -angle.sin()
        pose[:, :3, 3] = 0.3 * spread(3)
        waves, phases = 3 * spread(WAVES, 3), 3 * spread(WAVES, 3)
        sides = [self._view(p, normal, distance, waves, phases) for p in (torch.eye(4).repeat(count, 1, 1), pose)]
        if self.broken_from is not None and step >= self.broken_from:
            sides[0].images.fill_(float("nan"))
        return PairBatch(*sides)

    def _view(self, pose: Tensor, normal: Tensor, distance: Tensor, waves: Tensor, phases: Tensor) -> View:
        intrinsics = torch.tensor([self.width * 0.9, self.width * 0.9, (self.width - 1) / 2, (self.height - 1) / 2])
        v, u = torch.meshgrid(torch.arange(self.height).float(), torch.arange(self.width).float(), indexing="ij")
        rays = torch.stack([(u - intrinsics[2]) / intrinsics[0], (v - intrinsics[3]) / intrinsics[1], torch.ones_like(u)], -1)
        turned = torch.einsum("bij,hwj->bhwi", pose[:, :3, :3], rays)
        reach = distance - (normal * pose[:, :3, 3]).sum(1)
        depth = reach[:, None, None] / torch.einsum("bhwi,bi->bhw", turned, normal)
        points = turned * depth[..., None] + pose[:, None, None, :3, 3]
        colour = torch.sin(torch.einsum("bhwi,bki->bhwk", points, waves)[..., None] + phases[:, None, None]).mean(3)
        valid = (depth > 0.1) & (depth < 20)
        return View(colour.movedim(-1, 1).contiguous(), depth, valid, intrinsics.repeat(len(pose), 1), pose)
