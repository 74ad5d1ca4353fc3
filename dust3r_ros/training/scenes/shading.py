"""What light comes along rays: the hit's texture under lamps or a sun with shadows, ambient light, gloss; or the sky.

Lambert's law with Blinn's highlights (1977); linear RGB. Has not run on a GPU yet.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dust3r_ros.training.scenes import materials
from dust3r_ros.training.scenes.atlas import Atlas
from dust3r_ros.training.scenes.solids import FIRST_BOX, FIRST_CYLINDER, FIRST_SPHERE, MATERIAL, Scenes
from dust3r_ros.training.scenes.uneven import SKY, UNEVEN, first_hits, in_shadow, normals

LIFT = 2e-3  # share of the depth by which a shadow's ray starts above its surface
SHARPER = 0.3  # mip levels that textures are taken below the footprint: five rays a pixel carry that
CLOUDS = 0.35  # tiles of the sky's texture for a unit of tan(zenith angle)


def radiance(scene: Scenes, atlas: Atlas, origin: Tensor, direction: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Light [V, 3, N] along rays and the ray parameter [V, N] of what they hit, inf for the sky.

    `scene` has one scene for each view; rays are `origin` [V, 3] + t `direction` [V, 3, N], whose part along the view's axis is 1, so that
    t is the depth; `pixel` [V] is a pixel's width at depth 1.
    """
    t, index = first_hits(scene, origin[..., None], direction)
    hit = index != SKY
    rows = index + (SKY + 1) * torch.arange(len(index), device=t.device)[:, None]
    linear_x, linear_y, linear_z, half, material = _gathered(scene, rows)
    far = torch.where(hit, t, 1.0)
    point = origin[..., None] + far[:, None] * direction
    length = direction.square().sum(1).sqrt()

    unit = torch.stack([_affine(row, point) for row in (linear_x, linear_y, linear_z)])  # [3, V, N] where on the unit solid
    normal_unit, along_x, along_z, is_round = _surface(index, unit)
    normal = sum(row[:3] * value for row, value in zip((linear_x, linear_y, linear_z), normal_unit, strict=True))  # transposed product
    normal = normal.movedim(0, 1)
    own = normals(scene, origin[..., None], direction, point)
    if own is not None:
        uneven = index == UNEVEN
        normal = torch.where(uneven[:, None], own, normal)
        size = own.abs()
        upright = size[:, 2] >= torch.maximum(size[:, 0], size[:, 1])
        along_z, is_round = torch.where(uneven, upright, along_z), is_round & ~uneven
        along_x = torch.where(uneven, ~upright & (size[:, 0] >= size[:, 1]), along_x)
    facing = -(normal * direction).sum(1)
    normal = normal * (torch.where(facing < 0, -1.0, 1.0) * normal.square().sum(1).clamp_min(1e-20).rsqrt())[:, None]
    slant = (normal * direction).sum(1).abs() / length

    metric = unit * half
    u = torch.where(is_round, torch.atan2(unit[1], unit[0]) * half[0], torch.where(along_x, metric[1], metric[0]))
    v = torch.where(along_z, metric[1], -metric[2])  # rows of a texture go down
    high = direction[:, 2].clamp_min(0.05 * length)
    u = torch.where(hit, u, CLOUDS * direction[:, 0] / high)
    v = torch.where(hit, v, CLOUDS * direction[:, 1] / high)
    footprint = torch.where(hit, far, CLOUDS * (length / high) ** 2) * pixel[:, None] * slant.clamp_min(0.02).rsqrt()
    albedo = _albedo(atlas, material, u, v, footprint)
    lit = _lit(scene, material, albedo, point, normal, direction / length[:, None], far)
    return torch.where(hit[:, None], lit, _sky(scene, albedo, direction[:, 2] / length)), t


def _gathered(scene: Scenes, rows: Tensor) -> tuple[Tensor, ...]:
    """The map's three rows [4, V, N], half extents [3, V, N] and material [MATERIAL, V, N] of each ray's solid."""
    views = scene.to_unit.shape[0]
    whole = torch.cat([torch.eye(3, 4, device=rows.device).flatten(), torch.ones(3, device=rows.device)])  # the scene's own metres
    geometry = torch.cat([scene.to_unit.flatten(2), scene.half], dim=2)
    geometry = torch.cat([geometry, whole.expand(views, 2, -1)], dim=1)
    table = torch.cat([geometry, scene.material], dim=2).flatten(0, 1)
    own = functional.embedding(rows.flatten(), table).t().contiguous().view(-1, *rows.shape)
    return own[0:4], own[4:8], own[8:12], own[12:15], own[15 : 15 + MATERIAL]


def _affine(row: Tensor, point: Tensor) -> Tensor:
    return row[0] * point[:, 0] + row[1] * point[:, 1] + row[2] * point[:, 2] + row[3]


def _surface(index: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The unit solid's normal [3, V, N]; whether it is along x, along z; whether the surface is round."""
    panel = index < FIRST_BOX
    box = (index >= FIRST_BOX) & (index < FIRST_SPHERE)
    ball = (index >= FIRST_SPHERE) & (index < FIRST_CYLINDER)
    size = unit.abs()
    radius = (unit[0] ** 2 + unit[1] ** 2).sqrt()
    z_most = torch.where(box, torch.maximum(size[0], size[1]), radius) < size[2]
    along_z = panel | (z_most & ~ball)
    along_x = box & ~along_z & (size[0] >= size[1])
    is_round = ~panel & ~box & ~along_z
    flat_z = torch.where(along_z, unit[2].sign() + panel, torch.where(box, 0.0, torch.where(ball, unit[2], 0.0)))
    flat_x = torch.where(is_round, unit[0], torch.where(along_x, unit[0].sign(), 0.0))
    flat_y = torch.where(is_round, unit[1], torch.where(box & ~along_z & ~along_x, unit[1].sign(), 0.0))
    flat_z = torch.where(panel, 1.0, flat_z)
    return torch.stack([flat_x, flat_y, flat_z]), along_x, along_z, is_round


def _albedo(atlas: Atlas, material: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Tensor:
    """[V, 3, N]"""
    layer = material[[materials.LAYER, materials.SECOND_LAYER]].long()
    scale = material[[materials.SCALE, materials.SECOND_SCALE]]
    blend = material[materials.BLEND]
    level = (footprint * scale * atlas.size).clamp_min(1e-6).log2() - SHARPER
    weight = torch.stack([1 - blend, blend])
    across, along = u * scale + material[materials.OFFSET_U], v * scale + material[materials.OFFSET_V]
    shape = u.shape
    texture = atlas.sample(*(value.reshape(2, -1).t() for value in (layer, across, along, level, weight)))
    texture = texture.t().reshape(3, *shape)
    grey = texture.mean(0)
    colour = grey + material[materials.SATURATION] * (texture - grey)
    colour = 0.4 + material[materials.CONTRAST] * (colour - 0.4)
    return (colour * material[materials.RED : materials.BLUE + 1]).clamp(0.01, 0.95).movedim(0, 1)


def _lit(scene: Scenes, material: Tensor, albedo: Tensor, point: Tensor, normal: Tensor, view: Tensor, depth: Tensor) -> Tensor:
    start = point + normal * (LIFT * depth + 1e-4)[:, None]
    up = 0.5 + 0.5 * normal[:, 2:3]
    light = up * scene.ambient_up[..., None] + (1 - up) * scene.ambient_down[..., None]
    shine = torch.zeros_like(light)
    for lamp, (position, colour, falls) in enumerate(
        zip(scene.lamps.unbind(1), scene.lamp_colour.unbind(1), scene.lamp_falls.unbind(1), strict=True)
    ):
        way = position[..., None] - start
        distance = way.square().sum(1)
        toward = way * distance.rsqrt()[:, None]
        cosine = (normal * toward).sum(1).clamp_min(0)
        strength = cosine / torch.where(falls[:, None] > 0, distance.clamp_min(0.05), 1.0)
        if lamp == 0:
            strength = strength * ~in_shadow(scene, start, way * 0.98)
        light = light + strength[:, None] * colour[..., None]
        middle = toward - view
        sharp = (
            ((normal * middle).sum(1) * middle.square().sum(1).clamp_min(1e-8).rsqrt()).clamp_min(1e-3).pow(material[materials.SHARPNESS])
        )
        shine = shine + (strength * sharp * material[materials.GLOSS])[:, None] * colour[..., None]
    glow = material[materials.GLOW][:, None] * scene.lamp_colour[:, 0].amax(1)[:, None, None]
    return albedo * light + shine + albedo * glow


def _sky(scene: Scenes, clouds: Tensor, height: Tensor) -> Tensor:
    """Horizon to zenith, and clouds where the texture is bright."""
    share = height.clamp(0, 1).sqrt()[:, None]
    horizon, zenith = (value[..., None] for value in scene.sky.unbind(1))
    clear = horizon + share * (zenith - horizon)
    return clear * (0.6 + 1.2 * clouds)
