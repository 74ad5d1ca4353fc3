"""From pixels to a token for every patch, before the encoder: what a patch shows, and where in the picture it lies."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from dust3r_ros.network.blocks import precise
from dust3r_ros.network.heads import Grid


class PatchEmbedding(nn.Module):
    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to a grid of tokens [B, C, H / P, W / P]"""
        return self.proj(images.to(self.proj.weight.dtype))


class ConvolutionStem(nn.Module):
    """What convolutions of half the picture each make of it, down to patches: vision transformers learn sooner with them.

    Xiao et al., Early convolutions help transformers see better, NeurIPS 2021.
    """

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        halvings = patch_size.bit_length() - 1
        widths = [3, *(max(24, width // 2 ** (halvings - n)) for n in range(1, halvings + 1))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], width, 1))

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to a grid of tokens [B, C, H / P, W / P]"""
        return self.layers(images.to(next(self.parameters()).dtype))


class PlaceEmbedding(nn.Module):
    """What a patch is told of its place in the picture.

    Rotary positions alone say where patches lie to each other: that one looks left of the middle has to be worked out from what is there.
    As CoordConv has it (Liu et al., NeurIPS 2018), with Fourier features; in units of half the longer side, so that sizes may differ.
    """

    OCTAVES = 3

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(2 + 4 * self.OCTAVES, width)

    def forward(self, grid: Grid, device: torch.device) -> Tensor:
        """Rows and columns to [N, C], row by row."""
        axes = [(torch.arange(count, dtype=torch.float32, device=device) * 2 + 1 - count) / max(grid) for count in grid]
        place = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
        turned = [place * (torch.pi * 2**octave) for octave in range(self.OCTAVES)]
        waves = [wave for turn in turned for wave in (turn.sin(), turn.cos())]
        return self.proj(precise(self.proj, torch.cat([place, *waves], dim=-1))).float()
