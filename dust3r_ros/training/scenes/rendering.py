"""Views of scenes: light with five samples a pixel, depth at the pixel's centre."""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.training.scenes.atlas import Atlas
from dust3r_ros.training.scenes.cameras import pixel_grid, rays
from dust3r_ros.training.scenes.shading import radiance
from dust3r_ros.training.scenes.solids import SOLIDS, Scenes
from dust3r_ros.training.scenes.uneven import first_hits

RAYS = {"cpu": 6144, "cuda": 2**28 // SOLIDS}  # at a time: what stays in a CPU's cache, and in a GPU's memory (1 GiB a temporary)


class Renderer:
    """Renders views of `width` x `height` pixels.

    A pixel's colour is half its centre's and an eighth of each corner's, shared with its neighbours: two rays a pixel for five samples.
    Chunks of rays all have one size, so that `compiled` work is compiled once.
    """

    def __init__(self, atlas: Atlas, width: int, height: int, compiled: bool = False) -> None:
        self.atlas, self.width, self.height = atlas, width, height
        device = atlas.texels.device
        pixels = torch.cat([pixel_grid(width, height, device), pixel_grid(width + 1, height + 1, device) - 0.5], dim=1)
        self.limit = RAYS.get(device.type, RAYS["cuda"])
        self.pixels = _equal(pixels, -(-pixels.shape[1] // self.limit), 1)
        self._radiance = torch.compile(radiance, dynamic=False) if compiled else radiance
        self._first_hits = torch.compile(first_hits, dynamic=False) if compiled else first_hits

    def render(self, scene: Scenes, index: Tensor, intrinsics: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Light [V, 3, H, W], linear RGB, and depth [V, H, W], inf for the sky, of views of the scenes `index` [V]."""
        light, depth = [], []
        shade = radiance if scene.field.shape[-1] else self._radiance  # a march unrolled takes minutes to compile
        for part in self._parts(len(index), sum(piece.shape[1] for piece in self.pixels), index.device):
            own, seen_from, turned = scene.of(index[part]), intrinsics[part], pose[part]
            width = 1 / seen_from[:, 0]
            directions = (rays(seen_from, turned, piece) for piece in self.pixels)
            done = [shade(own, self.atlas, turned[:, :3, 3], direction, width) for direction in directions]
            light.append(torch.cat([colour for colour, _ in done], 2))
            depth.append(torch.cat([t for _, t in done], 1))
        centres = torch.cat(depth)[: len(index), : self.width * self.height]
        return self._filtered(torch.cat(light)[: len(index)]), centres.unflatten(1, (self.height, self.width))

    def look(self, scene: Scenes, index: Tensor, intrinsics: Tensor, pose: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Depth [V, N], inf for the sky, and the solid hit [V, N] at `pixels` [2, N], of views of the scenes `index` [V]; no light."""
        done = []
        cast = first_hits if scene.field.shape[-1] else self._first_hits
        for part in self._parts(len(index), pixels.shape[1], index.device):
            own, turned = index[part], pose[part]
            found = cast(scene.of(own), turned[:, :3, 3:], rays(intrinsics[part], turned, pixels))
            done.append(found)
        depth, solid = (torch.cat(value)[: len(index)] for value in zip(*done, strict=True))
        return depth, solid

    def _parts(self, views: int, each: int, device: torch.device) -> tuple[Tensor, ...]:
        """Indices of views, in parts of one size that have rays for the limit."""
        return _equal(torch.arange(views, device=device), -(-views // max(1, self.limit // each)), 0)

    def _filtered(self, light: Tensor) -> Tensor:
        inner, outer = self.width * self.height, (self.width + 1) * (self.height + 1)
        centres = light[:, :, :inner].unflatten(2, (self.height, self.width))
        corners = light[:, :, inner : inner + outer].unflatten(2, (self.height + 1, self.width + 1))
        around = corners[:, :, :-1, :-1] + corners[:, :, :-1, 1:] + corners[:, :, 1:, :-1] + corners[:, :, 1:, 1:]
        return 0.5 * centres + 0.125 * around


def _equal(values: Tensor, parts: int, dim: int) -> tuple[Tensor, ...]:
    """`values` in so many parts of one size along `dim`, the last filled up with the last value."""
    size = -(-values.shape[dim] // parts)
    missing = size * parts - values.shape[dim]
    last = values.narrow(dim, values.shape[dim] - 1, 1)
    filled = torch.cat([values, *[last] * missing], dim) if missing else values
    return filled.split(size, dim)
