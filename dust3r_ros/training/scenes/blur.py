"""Blur of a picture: out of focus (a soft disc) or moved while it was taken (a line); a kernel for each picture of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

REACH = 3  # pixels from a kernel's middle to its edge


def blurred(light: Tensor, radius: Tensor, length: Tensor, angle: Tensor) -> Tensor:
    """`light` [B, 3, H, W] with discs of `radius` [B] and lines of `length` [B] pixels at `angle` [B] radians; sharp where both are 0."""
    batch = light.shape[0]
    kernels = _kernels(radius, length, angle).repeat_interleave(3, 0)[:, None]
    edge = 2 * REACH + 1
    padded = functional.pad(light, (REACH,) * 4, mode="replicate").flatten(0, 1)[None]
    return functional.conv2d(padded, kernels.view(3 * batch, 1, edge, edge), groups=3 * batch)[0].unflatten(0, (batch, 3))


def _kernels(radius: Tensor, length: Tensor, angle: Tensor) -> Tensor:
    """[B, edge, edge], sum 1: what lies within half a pixel of the disc or the line, with a soft edge."""
    place = torch.arange(-REACH, REACH + 1, device=radius.device, dtype=torch.float32)
    y, x = place[:, None], place[None]
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = x * c + y * s, y * c - x * s
    beyond = (along.abs() - 0.5 * length[:, None, None]).clamp_min(0)
    distance = (beyond.square() + across.square()).sqrt()
    weight = (1 - (distance - radius[:, None, None])).clamp(0, 1)
    return weight / weight.sum((1, 2), keepdim=True)
