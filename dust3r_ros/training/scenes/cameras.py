"""Cameras in scenes: first ones where there is something to see, second ones around what the first one sees.

All randomness comes in as uniform numbers 0..1, so that the same numbers give the same cameras on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from dust3r_ros.training.scenes.height_fields import height
from dust3r_ros.training.scenes.solids import FIRST_BOX, FIRST_CYLINDER, FIRST_SPHERE, Scenes

FIRST_NUMBERS, SECOND_NUMBERS = 4, 10  # uniform numbers that a camera takes
LIBERTY = 0.06  # metres at least between a camera and a solid


def looking_at(position: Tensor, target: Tensor, roll: Tensor) -> Tensor:
    """Poses [..., 4, 4], camera to scene (OpenCV axes; the scene has z up), `position` to `target` [..., 3], `roll` [...] in radians."""
    forward = functional.normalize(target - position, dim=-1)
    up = torch.zeros_like(forward)
    up[..., 2] = 1
    right = functional.normalize(torch.cross(forward, up, dim=-1) + 1e-6, dim=-1)
    down = torch.cross(forward, right, dim=-1)
    right = functional.normalize(torch.cross(down, forward, dim=-1), dim=-1)
    c, s = roll.cos()[..., None], roll.sin()[..., None]
    pose = torch.zeros(*position.shape[:-1], 4, 4, device=position.device)
    pose[..., :3, :] = torch.stack([c * right + s * down, c * down - s * right, forward, position], dim=-1)
    pose[..., 3, 3] = 1
    return pose


def intrinsics_of(width: int, height: int, field_of_view: Tensor, shift: Tensor) -> Tensor:
    """fx, fy, cx, cy [..., 4] in pixels, square ones, for `field_of_view` [...] radians across the wider side; `shift` [..., 2]: of the
    principal point, in pixels."""
    focal = 0.5 * max(width, height) / (0.5 * field_of_view).tan()
    return torch.stack([focal, focal, 0.5 * (width - 1) + shift[..., 0], 0.5 * (height - 1) + shift[..., 1]], dim=-1)


def pixel_grid(width: int, height: int, device: torch.device | str) -> Tensor:
    """Pixel centres [2, H * W], row by row."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()]).float()


def rays(intrinsics: Tensor, pose: Tensor, pixels: Tensor) -> Tensor:
    """Directions [V, 3, N] in the scene, 1 along the camera's axis, through `pixels` [2, N]; `intrinsics` [V, 4], `pose` [V, 4, 4]."""
    focal, middle = intrinsics[:, :2, None], intrinsics[:, 2:, None]
    flat = (pixels - middle) / focal
    return pose[:, :3, :3] @ torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)


def shrunk(intrinsics: Tensor, factor_x: float, factor_y: float) -> Tensor:
    """The same camera with pixels `factor` times as wide and as high."""
    factor = torch.tensor([factor_x, factor_y], device=intrinsics.device)
    return torch.cat([intrinsics[..., :2] / factor, (intrinsics[..., 2:] + 0.5) / factor - 0.5], dim=-1)


def clearance(scene: Scenes, position: Tensor) -> Tensor:
    """Metres [S, C] from `position` [S, C, 3] to the nearest solid, about; negative inside of one."""
    solids = slice(FIRST_BOX, None)
    unit = torch.einsum("spij,scj->scpi", scene.to_unit[:, solids, :, :3], position) + scene.to_unit[:, None, solids, :, 3]
    half = scene.half[:, None, solids]
    size = unit.abs()
    radius = size[..., :2].square().sum(-1).sqrt()
    box = ((size - 1) * half).amax(-1)
    ball = (unit.square().sum(-1).sqrt() - 1) * half.amin(-1)
    tin = torch.maximum((radius - 1) * half[..., 0], (size[..., 2] - 1) * half[..., 2])
    a, b = FIRST_SPHERE - FIRST_BOX, FIRST_CYLINDER - FIRST_BOX
    clear = torch.cat([box[..., :a], ball[..., a:b], tin[..., b:]], dim=-1).amin(-1)
    if scene.field.shape[-1]:
        clear = torch.minimum(clear, position[..., 2] - height(scene.field, position[..., 0], position[..., 1])[0])
    return clear


def badness(scene: Scenes, origin: Tensor, depth: Tensor, solid: Tensor, near: Tensor) -> Tensor:
    """How bad views are [S, C] that see `depth` [S, C, N], inf for the sky, and the solids `solid` [S, C, N] from `origin` [S, C, 3].

    0 is good, 1 and more is not to be used: inside a solid or nearly, a median depth under `near` [S], mostly sky, or mostly one solid.
    """
    hit = torch.isfinite(depth)
    share = hit.float().mean(-1)
    median = torch.where(hit, depth, 1e4).median(dim=-1).values
    counts = torch.zeros(*depth.shape[:2], scene.material.shape[1], device=depth.device).scatter_add_(2, solid, hit.float())
    most = counts.amax(-1) / depth.shape[-1]
    if scene.field.shape[-1]:
        most = torch.zeros_like(most)  # a hillside is no flat wall
    bad = (clearance(scene, origin) < LIBERTY).float() * 4
    return bad + (1 - median / near[:, None]).clamp_min(0) * 4 + (0.45 - share).clamp_min(0) * 8 + (most - 0.75).clamp_min(0) * 8


def second_poses(numbers: Tensor, first: Tensor, depth: Tensor, direction: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Poses [S, C, 4, 4] of candidates for the second view, from next to nothing to a quarter turn away.

    `numbers` [S, C, SECOND_NUMBERS] uniform; `first` [S, 4, 4]; `depth` [S, N] and rays `direction` [S, 3, N] of the first view;
    `low`, `high` [S, 3] where cameras may be. Some walk around a point that the first view sees, some turn, some go ahead.
    """
    scenes, cameras = numbers.shape[:2]
    position = first[:, None, :3, 3].expand(scenes, cameras, 3)
    chosen = (numbers[..., 0] * (depth.shape[1] - 1)).long()
    finite = torch.where(torch.isfinite(depth), depth, 20.0)
    distance = finite.gather(1, chosen)
    point = position + distance[..., None] * direction.transpose(1, 2).gather(1, chosen[..., None].expand(-1, -1, 3))
    size = torch.exp(numbers[..., 1] * math.log(60)) / 60  # 1/60 to 1, evenly in the logarithm
    angle = (numbers[..., 2] - 0.5).sign() * size * math.pi / 2
    arm = position - point
    c, s = angle.cos(), angle.sin()
    arm = torch.stack(
        [c * arm[..., 0] - s * arm[..., 1], s * arm[..., 0] + c * arm[..., 1], arm[..., 2] * (1 + size * (numbers[..., 3] - 0.5))], -1
    )
    arm = arm * torch.exp((numbers[..., 4:5] * 2 - 1) * 0.7 * size[..., None])
    walked = point + arm
    stepped = position + (walked - position) * 0.15
    turning = (numbers[..., 5] < 0.35)[..., None]
    place = torch.where(turning, stepped, walked)
    place = torch.minimum(torch.maximum(place, low[:, None]), high[:, None])
    forward = first[:, None, :3, 2]
    ahead = position + forward * distance[..., None]
    turn = (numbers[..., 6] * 2 - 1) * torch.where(turning[..., 0], 1.4 * size, 0.35 * size)
    reach = ahead - position
    c, s = turn.cos(), turn.sin()
    turned = torch.stack(
        [
            c * reach[..., 0] - s * reach[..., 1],
            s * reach[..., 0] + c * reach[..., 1],
            reach[..., 2] + reach.square().sum(-1).sqrt() * 0.4 * size * (numbers[..., 7] - 0.5),
        ],
        -1,
    )
    blend = numbers[..., 8:9]
    target = torch.where(turning, place + turned, blend * point + (1 - blend) * (position + turned))
    return looking_at(place, target, rolls(numbers[..., 9]))


def rolls(number: Tensor) -> Tensor:
    """Radians from uniform numbers: mostly within 5 degrees, one in eight up to 45."""
    level = (number * 8) % 1 * 2 - 1
    return torch.where(number > 0.875, level * math.pi / 4, level**3 * math.radians(10))
