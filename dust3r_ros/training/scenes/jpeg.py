"""What JPEG does to pictures, a batch at once: halved colour, 8 x 8 cosine transform, quantisation (ITU-T T.81, annex K), and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *[99] * 32,
)  # fmt: skip


def jpeg(picture: Tensor, quality: Tensor) -> Tensor:
    """`picture` [B, 3, H, W], RGB 0..1, stored with `quality` [B] from 1 to 100 and read again, 0..1."""
    rows, columns = picture.shape[2:]
    picture = functional.pad(picture * 255, (0, -columns % 16, 0, -rows % 16), mode="replicate")
    red, green, blue = picture.unbind(1)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    colour = functional.avg_pool2d(torch.stack([(blue - y) * 0.564, (red - y) * 0.713], 1), 2)
    y = _stored(y[:, None] - 128, _table(LUMINANCE, quality)) + 128
    colour = functional.interpolate(_stored(colour, _table(CHROMINANCE, quality)), scale_factor=2.0, mode="bilinear")
    y, cb, cr = y[:, 0], colour[:, 0], colour[:, 1]
    result = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return (result[:, :, :rows, :columns] / 255).clamp(0, 1)


def _table(base: tuple[int, ...], quality: Tensor) -> Tensor:
    """Steps [B, 1, 1, 8, 1, 8] by the rule of the Independent JPEG Group."""
    scale = torch.where(quality < 50, 50 / quality.clamp_min(1), 2 - quality / 50)
    table = torch.tensor(base, dtype=torch.float32, device=quality.device).view(8, 8)
    return (table * scale[:, None, None]).round().clamp(1, 255)[:, None, None, :, None, :]


def _stored(channels: Tensor, steps: Tensor) -> Tensor:
    """[B, C, H, W], each 8 x 8 block quantised."""
    number = torch.arange(8, device=channels.device)
    cosine = torch.cos(math.pi / 8 * (number + 0.5) * number[:, None]) / 2
    cosine = torch.where(number[:, None] == 0, cosine * math.sqrt(0.5), cosine)  # [frequency, place], orthonormal
    batch, depth, rows, columns = channels.shape
    blocks = channels.reshape(batch, depth, rows // 8, 8, columns // 8, 8)
    waves = torch.einsum("uy,bcryqx,vx->bcruqv", cosine, blocks, cosine)
    waves = (waves / steps).round() * steps
    return torch.einsum("uy,bcruqv,vx->bcryqx", cosine, waves, cosine).reshape(channels.shape)
