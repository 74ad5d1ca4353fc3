"""From the light that fell in to the picture that a camera gives: blur, vignetting, exposure, white balance, noise, 8 bits, JPEG."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dust3r_ros.training.scenes.blur import blurred
from dust3r_ros.training.scenes.config import CameraEffects
from dust3r_ros.training.scenes.jpeg import jpeg

NUMBERS, CHANCES = 5, 5  # normal and uniform numbers that a picture takes
GREY = 0.26  # mean of a well exposed picture, linear
OUT_OF_FOCUS, MOVED, WAS_JPEG = 0.2, 0.15, 0.6  # shares of the pictures


def exposed(light: Tensor, effects: CameraEffects, normal: Tensor, uniform: Tensor, noise: Tensor) -> Tensor:
    """Pictures [B, 3, H, W], 8 bits mapped to -1..1, of `light` [B, 3, H, W], linear RGB.

    `normal` [B, NUMBERS], `uniform` [B, CHANCES] and `noise` [B, 3, H, W] (normal) are what chance decides.
    """
    one = normal[:, :, None, None, None]
    focus, motion, angle, stored, quality = uniform.unbind(1)
    if effects.blur > 0:
        radius = (1.5 * effects.blur * (focus / OUT_OF_FOCUS)).where(focus < OUT_OF_FOCUS, 0)
        length = (4.0 * effects.blur * (motion / MOVED)).where(motion < MOVED, 0)
        light = blurred(light, radius, length, angle * math.pi)
    gain = GREY / light.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6) * torch.exp2(0.5 * effects.exposure * one[:, 0])
    balance = 1 + 0.1 * effects.white_balance * normal[:, 1:3].clamp(-2.5, 2.5)
    colour = torch.stack([balance[:, 0], torch.ones_like(balance[:, 0]), balance[:, 1]], 1)[..., None, None]
    signal = light * gain * colour * _vignette(light, effects.vignetting * one[:, 3].abs())
    level = effects.noise * 0.02 * (0.6 * one[:, 4]).exp()
    signal = signal + noise * (level**2 * signal + (0.3 * level) ** 2).sqrt()  # shot noise grows with the light, read noise does not
    picture = encoded(signal)
    if effects.jpeg > 0:
        was = stored < WAS_JPEG * effects.jpeg
        picture = torch.where(was[:, None, None, None], jpeg(picture, 30 + 65 * quality), picture)
    return (picture * 255).round().clamp(0, 255) / 127.5 - 1


def encoded(signal: Tensor) -> Tensor:
    """Linear to sRGB, both 0..1, with a soft shoulder over 0.8 as cameras have."""
    signal = signal.clamp_min(0)
    signal = torch.where(signal > 0.8, 1 - 0.2 * torch.exp((0.8 - signal) / 0.2), signal)
    return torch.where(signal <= 0.0031308, signal * 12.92, 1.055 * signal.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def _vignette(light: Tensor, strength: Tensor) -> Tensor:
    rows, columns = light.shape[2:]
    y = torch.linspace(-1, 1, rows, device=light.device)[:, None]
    x = torch.linspace(-1, 1, columns, device=light.device)
    return 1 - (0.2 * strength).clamp_max(0.4) * 0.5 * (x**2 + y**2)
