"""From a camera's picture to the network's: resized, cut to whole patches, and the intrinsics with it.

Resizing is Lanczos (down) or bicubic (up) with antialiasing on 8-bit values, as two matrix products: it runs where the network does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dust3r_ros.estimators.errors import EstimatorError
from dust3r_ros.geometry import Camera

LANCZOS_SUPPORT, BICUBIC_SUPPORT = 3.0, 2.0
BICUBIC_SHARPNESS = -0.5
FOUR_THIRDS = 4 / 3  # what an exactly square picture is cut to: the networks saw none


@dataclass(frozen=True)
class Framing:
    """Where the network's picture lies in a camera's: the whole resized to width x height, then cut from (left, top) on."""

    resized: tuple[int, int]  # width, height
    left: int
    top: int
    size: tuple[int, int]  # width, height, multiples of the patch

    def camera(self, camera: Camera) -> Camera:
        """The pinhole camera of the cut picture, of `camera`, which has no distortion."""
        return camera.resized(*self.resized).cropped(self.left, self.top, *self.size)


def framing(width: int, height: int, longer_side: int, patch: int, square: bool) -> Framing:
    """How a picture of width x height is brought to the network's size: rounded to the nearest pixel, cut around (W // 2, H // 2).

    `square`: the shorter side becomes `longer_side` and a square is cut. Raises EstimatorError for a picture that would be no patch wide.
    """
    scale = longer_side / (min if square else max)(width, height)
    wide, high = _nearest(width * scale), _nearest(height * scale)
    out_wide, out_high = ((wide // 2) * 2 // patch * patch, (high // 2) * 2 // patch * patch)
    if square:
        out_wide = out_high = longer_side // patch * patch
    elif wide == high:
        out_high = int(out_wide / FOUR_THIRDS) // patch * patch
    if min(out_wide, out_high) < patch:
        raise EstimatorError(
            f"picture of {width}x{height} pixels at a longer side of {longer_side}: less than one patch of {patch} pixels is left; "
            "give a less narrow picture or a larger estimator.size"
        )
    return Framing((wide, high), wide // 2 - out_wide // 2, high // 2 - out_high // 2, (out_wide, out_high))


def _nearest(value: float) -> int:
    return max(1, math.floor(value + 0.5))


def resample(image: NDArray[np.uint8], frame: Framing, device: torch.device) -> Tensor:
    """[H, W, 3] uint8 RGB to the framed picture [h, w, 3] uint8 on `device`. Rounded to 8 bits between the passes, as Pillow does."""
    height, width = image.shape[:2]
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).to(device)
    if (width, height) != frame.resized:
        pixels = _along_width(pixels, frame.resized[0])
        pixels = _along_width(pixels.transpose(0, 1), frame.resized[1]).transpose(0, 1)
    rows, columns = slice(frame.top, frame.top + frame.size[1]), slice(frame.left, frame.left + frame.size[0])
    return pixels[rows, columns].contiguous()


def _along_width(pixels: Tensor, width: int) -> Tensor:
    """[H, W, 3] uint8 to [H, width, 3]."""
    if pixels.shape[1] == width:
        return pixels
    weights = _weights(pixels.shape[1], width, str(pixels.device))
    planes = pixels.permute(2, 0, 1).float() @ weights.T
    return (planes + 0.5).clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)


@lru_cache(maxsize=16)
def _weights(source: int, target: int, device: str) -> Tensor:
    """[target, source]: what each new pixel takes of each old one; rows sum to 1."""
    scale = source / target
    stretch = max(scale, 1.0)
    lanczos = scale > 1.0
    support = (LANCZOS_SUPPORT if lanczos else BICUBIC_SUPPORT) * stretch
    centres = (np.arange(target)[:, None] + 0.5) * scale
    places = np.arange(source)[None, :] + 0.5
    first, last = np.floor(centres - support + 0.5), np.floor(centres + support + 0.5)
    x = (places - centres) / stretch
    values = _lanczos(x) if lanczos else _bicubic(x)
    values = np.where((np.arange(source) >= first) & (np.arange(source) < last), values, 0.0)
    with torch.inference_mode(False):
        return torch.from_numpy((values / values.sum(1, keepdims=True)).astype(np.float32)).to(device)


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < LANCZOS_SUPPORT, np.sinc(x) * np.sinc(x / LANCZOS_SUPPORT), 0.0)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a, x = BICUBIC_SHARPNESS, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def normalised(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """[B, h, w, 3] uint8 to [B, 3, h, w] in -1..1."""
    return pixels.permute(0, 3, 1, 2).to(dtype).div_(127.5).sub_(1.0)
