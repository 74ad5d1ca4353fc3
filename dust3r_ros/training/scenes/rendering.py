"""Views of scenes: light with five samples a pixel, depth at the pixel's centre."""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.training.scenes.atlas import Atlas
from dust3r_ros.training.scenes.cameras import pixel_grid, rays
from dust3r_ros.training.scenes.shading import radiance
from dust3r_ros.training.scenes.solids import SOLIDS, Scenes

RAYS = {"cpu": 6144, "cuda": 2**28 // SOLIDS}  # at a time: what stays in a CPU's cache, and in a GPU's memory (1 GiB a temporary)


class Renderer:
    """Renders views of `width` x `height` pixels.

    A pixel's colour is half its centre's and an eighth of each corner's, shared with its neighbours: two rays a pixel for five samples.
    """

    def __init__(self, atlas: Atlas, width: int, height: int, compiled: bool = False) -> None:
        self.atlas, self.width, self.height = atlas, width, height
        device = atlas.texels.device
        self.pixels = torch.cat([pixel_grid(width, height, device), pixel_grid(width + 1, height + 1, device) - 0.5], dim=1)
        self._radiance = torch.compile(radiance) if compiled else radiance

    def render(self, scene: Scenes, index: Tensor, intrinsics: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Light [V, 3, H, W], linear RGB, and depth [V, H, W], inf for the sky, of views of the scenes `index` [V]."""
        total, limit = self.pixels.shape[1], RAYS[self.pixels.device.type]
        pieces = -(-total // limit) if total > limit else 1
        views = max(1, limit // total)
        light, depth = [], []
        for start in range(0, len(index), views):
            part = slice(start, start + views)
            own = scene.of(index[part])
            done = [
                self._radiance(own, self.atlas, pose[part, :3, 3], rays(intrinsics[part], pose[part], pixels), 1 / intrinsics[part, 0])
                for pixels in self.pixels.chunk(pieces, dim=1)
            ]
            light.append(torch.cat([colour for colour, _ in done], 2))
            depth.append(torch.cat([t for _, t in done], 1))
        return self._filtered(torch.cat(light)), torch.cat(depth)[:, : self.width * self.height].unflatten(1, (self.height, self.width))

    def _filtered(self, light: Tensor) -> Tensor:
        centres = light[:, :, : self.width * self.height].unflatten(2, (self.height, self.width))
        corners = light[:, :, self.width * self.height :].unflatten(2, (self.height + 1, self.width + 1))
        around = corners[:, :, :-1, :-1] + corners[:, :, :-1, 1:] + corners[:, :, 1:, :-1] + corners[:, :, 1:, 1:]
        return 0.5 * centres + 0.125 * around
