"""What no solid gives: ground that is a height field, and meshes. Scenes without them carry tensors of no length, and pay nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.training.scenes.casting import blocked, first_triangle, nearest, triangles_between
from dust3r_ros.training.scenes.height_fields import height, march, shaded
from dust3r_ros.training.scenes.solids import SOLIDS, Scenes

UNEVEN, SKY = SOLIDS, SOLIDS + 1  # what a ray has hit, beyond the solids' own indices


def first_hits(scene: Scenes, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Of rays `origin` [V, 3, 1] + t `direction` [V, 3, N]: t [V, N], inf for the sky, and what is hit [V, N]: a solid, UNEVEN or SKY."""
    t, index = nearest(scene.to_unit, scene.openings, origin, direction)
    if scene.field.shape[-1]:
        ground = march(scene.field, origin, direction)
        t, index = torch.minimum(t, ground), torch.where(ground < t, UNEVEN, index)
    if scene.triangles.shape[1]:
        surface, _ = first_triangle(scene.triangles, origin, direction)
        t, index = torch.minimum(t, surface), torch.where(surface < t, UNEVEN, index)
    return t, torch.where(torch.isfinite(t), index, SKY)


def normals(scene: Scenes, origin: Tensor, direction: Tensor, point: Tensor) -> Tensor | None:
    """Normals [V, 3, N], of any length, of what is uneven at the rays' hits `point` [V, 3, N]; None where nothing is."""
    found = None
    if scene.field.shape[-1]:
        _, along_x, along_y = height(scene.field, point[:, 0], point[:, 1])
        found = torch.stack([-along_x, -along_y, torch.ones_like(along_x)], 1)
    if scene.triangles.shape[1]:
        _, which = first_triangle(scene.triangles, origin, direction)
        across = scene.triangles[:, :, 2, :3].transpose(1, 2)
        found = across.gather(2, which[:, None].expand(-1, 3, -1))
    return found


def in_shadow(scene: Scenes, start: Tensor, way: Tensor) -> Tensor:
    """Whether anything stands between `start` [V, 3, N] and the lamp at `start + way`: [V, N] bool."""
    dark = blocked(scene.to_unit, scene.openings, start, way)
    if scene.field.shape[-1]:
        dark = dark | shaded(scene.field, start, way)
    if scene.triangles.shape[1]:
        dark = dark | triangles_between(scene.triangles, start, way)
    return dark
