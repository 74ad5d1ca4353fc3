"""From the light that fell in to the picture that a camera gives: exposure, white balance, vignetting, blur, noise, 8 bits, JPEG."""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.training.scenes.config import CameraEffects

NUMBERS = 16  # normal numbers that a picture takes


def exposed(light: Tensor, effects: CameraEffects, numbers: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures [B, 3, H, W], 8 bits mapped to -1..1, of `light` [B, 3, H, W], linear RGB; `numbers` [B, NUMBERS] are normal."""
    wide = numbers[:, :, None, None, None]
    mean = light.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    gain = 0.26 / mean * torch.exp2(0.5 * effects.exposure * wide[:, 0])
    balance = 1 + 0.1 * effects.white_balance * numbers[:, 1:3].clamp(-2.5, 2.5)
    colour = torch.stack([balance[:, 0], torch.ones_like(balance[:, 0]), balance[:, 1]], 1)[..., None, None]
    signal = light * gain * colour * _vignette(light, effects.vignetting * wide[:, 3].abs())
    level = effects.noise * 0.02 * (0.6 * wide[:, 4]).exp()
    noise = torch.randn(light.shape, device=light.device, generator=generator)
    signal = signal + noise * (level**2 * signal.clamp_min(0) + (0.3 * level) ** 2).sqrt()
    return quantised(encoded(signal))


def encoded(signal: Tensor) -> Tensor:
    """Linear to sRGB, both 0..1, with a soft shoulder over 0.8 as cameras have."""
    signal = signal.clamp_min(0)
    signal = torch.where(signal > 0.8, 1 - 0.2 * torch.exp((0.8 - signal) / 0.2), signal)
    return torch.where(signal <= 0.0031308, signal * 12.92, 1.055 * signal.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def quantised(picture: Tensor) -> Tensor:
    """0..1 to 256 steps over -1..1."""
    return (picture * 255).round().clamp(0, 255) / 127.5 - 1


def _vignette(light: Tensor, strength: Tensor) -> Tensor:
    rows, columns = light.shape[2:]
    y = torch.linspace(-1, 1, rows, device=light.device)[:, None]
    x = torch.linspace(-1, 1, columns, device=light.device)
    return 1 - (0.2 * strength).clamp_max(0.4) * 0.5 * (x**2 + y**2)
