"""From tokens to a value for every pixel: linear, dense prediction transformer (Ranftl et al., ICCV 2021), and MASt3R's descriptors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import Mlp
from dust3r_ros.network.config import NetworkConfig

LEVEL_WIDTHS = (96, 192, 384, 768)
FUSED, LAST = 256, 128
RAW_CHANNELS = 4  # x, y, z, confidence
MIN_DISTANCE = 1e-8

Grid = tuple[int, int]  # rows and columns of tokens


class LinearHead(nn.Module):
    """Every token gives the pixels of its own patch."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.proj = nn.Linear(config.decoder_width, RAW_CHANNELS * config.patch_size**2)

    def forward(self, levels: Sequence[Tensor], grid: Grid) -> Tensor:
        """Tokens of every level, each [B, N, C], to raw values [B, 4, H, W]."""
        return unpatched(self.proj(levels[-1]), grid, self.patch_size)


class DptHead(nn.Module):
    """Four levels, fused from coarse to fine; with descriptors beside, where the configuration has them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.levels = config.levels
        self.dpt = _Dpt([config.encoder_width] + 3 * [config.decoder_width])
        self.patch_size = config.patch_size
        if config.descriptor_width:
            width = config.encoder_width + config.decoder_width
            self.head_local_features = Mlp(width, config.mlp_ratio * width, (config.descriptor_width + 1) * config.patch_size**2)

    def forward(self, levels: Sequence[Tensor], grid: Grid) -> Tensor:
        """Tokens of every level, each [B, N, C], to raw values [B, 4, H, W], or [B, 4 + D + 1, H, W] with descriptors."""
        maps = [levels[n].transpose(1, 2).unflatten(2, grid) for n in self.levels]
        raw = self.dpt(maps)
        if not hasattr(self, "head_local_features"):
            return raw
        local = self.head_local_features(torch.cat([levels[0], levels[-1]], dim=-1))
        return torch.cat([raw, unpatched(local, grid, self.patch_size)], dim=1)


class _Dpt(nn.Module):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        a, b, c, d = LEVEL_WIDTHS
        self.scratch = _Scratch()
        self.head = nn.Sequential(
            nn.Conv2d(FUSED, LAST, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(LAST, LAST, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(LAST, RAW_CHANNELS, 1),
        )
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(widths[0], a, 1), nn.ConvTranspose2d(a, a, 4, stride=4)),
                nn.Sequential(nn.Conv2d(widths[1], b, 1), nn.ConvTranspose2d(b, b, 2, stride=2)),
                nn.Sequential(nn.Conv2d(widths[2], c, 1)),
                nn.Sequential(nn.Conv2d(widths[3], d, 1), nn.Conv2d(d, d, 3, stride=2, padding=1)),
            ]
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        fine_to_coarse = [rn(post(level)) for rn, post, level in zip(self.scratch.layer_rn, self.act_postprocess, maps, strict=True)]
        path = self.scratch.refinenet4(fine_to_coarse[3])
        path = path[..., : fine_to_coarse[2].shape[-2], : fine_to_coarse[2].shape[-1]]  # odd token counts
        path = self.scratch.refinenet3(path, fine_to_coarse[2])
        path = self.scratch.refinenet2(path, fine_to_coarse[1])
        path = self.scratch.refinenet1(path, fine_to_coarse[0])
        return self.head(path)


class _Scratch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for level, width in enumerate(LEVEL_WIDTHS, start=1):
            setattr(self, f"layer{level}_rn", nn.Conv2d(width, FUSED, 3, padding=1, bias=False))
        # The published files name these four twice.
        self.layer_rn = nn.ModuleList([getattr(self, f"layer{level}_rn") for level in range(1, 5)])
        self.refinenet1, self.refinenet2, self.refinenet3, self.refinenet4 = (_Fusion() for _ in range(4))


class _Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(FUSED, FUSED, 1)
        self.resConfUnit1 = _ResidualUnit()
        self.resConfUnit2 = _ResidualUnit()

    def forward(self, path: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            path = path + self.resConfUnit1(skip)
        path = F.interpolate(self.resConfUnit2(path), scale_factor=2, mode="bilinear", align_corners=True)
        return self.out_conv(path)


class _ResidualUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(FUSED, FUSED, 3, padding=1)
        self.conv2 = nn.Conv2d(FUSED, FUSED, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def unpatched(values: Tensor, grid: Grid, patch_size: int) -> Tensor:
    """[B, N, C * P * P] to [B, C, H, W]: channel-major within a patch."""
    return F.pixel_shuffle(values.transpose(1, 2).unflatten(2, grid), patch_size)


def points_of(raw: Tensor) -> Tensor:
    """Raw [B, 3, H, W] to points [B, H, W, 3]: the direction stands, the length d becomes exp(d) - 1. In float32."""
    raw = raw.float().movedim(1, -1)
    distance = raw.norm(dim=-1, keepdim=True)
    return raw / distance.clamp(min=MIN_DISTANCE) * torch.expm1(distance)


def confidence_of(raw: Tensor, least: float = 1.0) -> Tensor:
    """Raw [B, H, W] to a confidence above `least`. In float32."""
    return least + raw.float().exp()
