"""Where the other view sees what every cell of four by four pixels shows: found before the decoders, and told to them.

A softmax over the likeness of all places, and the mean of their coordinates under it, as in GMFlow (Xu et al., CVPR 2022). Decoders of
large networks learn to find matches from millions of pairs; small ones, trained on little, hardly begin to. Cells are told apart by
convolutions, which see the same thing wherever it lies in the picture, and by the encoder's tokens, which know what is around it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import Mlp, precise
from dust3r_ros.network.config import MATCHED_CELL, NetworkConfig
from dust3r_ros.network.heads import Grid, unpatched

WIDTHS = (32, 64)  # of the convolutions: at half the picture's size, then a quarter
RESIDUAL_UNITS = 4  # what a cell sees is some seventy pixels wide
GROUPS = 8
OCTAVES = 3
TOLD = 6 + 4 * OCTAVES  # values told of a cell
FIRST_SHARPNESS = (math.log(1 / 0.07), 0.0)  # of the convolutions' likeness, and the tokens'
SHARPEST = math.log(100.0)
LEAST = 1e-6
LARGEST = 1 << 25  # likenesses at a time, 128 MB: those of large pictures grow with the fourth power of their side


class PatchMatching(nn.Module):
    """`cells` of an image alone, then for a pair what the decoders' tokens are to know of each other's places."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.side = config.patch_size // MATCHED_CELL
        self.features = CellFeatures(config.match_width)
        self.proj = nn.Linear(config.encoder_width, config.match_width * self.side**2)
        self.told = Mlp(TOLD * self.side**2, 2 * config.decoder_width, config.decoder_width)
        self.sharpness = nn.Parameter(torch.tensor(FIRST_SHARPNESS))

    def cells(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Images and their encoder tokens [B, N, C] to what each patch's cells are known by, [B, N, 2 D side^2], channel-major. float32.

        Of a cell: two vectors of D, as long as the root of how much they weigh, so that the product with another's is the likeness.
        """
        unit_1 = F.normalize(self.features(images).float(), dim=1)
        unit_2 = F.normalize(self.proj(precise(self.proj, tokens)).float().unflatten(2, (-1, self.side**2)), dim=2)
        weight_1, weight_2 = self.sharpness.float().clamp(max=SHARPEST).mul(0.5).exp()
        of_patches = F.pixel_unshuffle(unit_1, self.side).flatten(2).transpose(1, 2)
        return torch.cat([of_patches * weight_1, unit_2.flatten(2) * weight_2], dim=-1)

    def likeness(self, cells_1: Tensor, grid_1: Grid, cells_2: Tensor, grid_2: Grid) -> Tensor:
        """[B, M1, M2] of all cells, row by row of the pictures' cells: what the softmax is taken of. float32."""
        one, two = (unpatched(cells.float(), grid, self.side).flatten(2) for cells, grid in ((cells_1, grid_1), (cells_2, grid_2)))
        with torch.autocast(one.device.type, enabled=False):
            return one.transpose(1, 2) @ two

    def forward(self, cells_1: Tensor, grid_1: Grid, cells_2: Tensor, grid_2: Grid) -> tuple[Tensor, Tensor]:
        """Both views' cells to what their decoder tokens are told, [B, N1, C] and [B, N2, C]."""
        return self._told(cells_1, grid_1, cells_2, grid_2), self._told(cells_2, grid_2, cells_1, grid_1)

    def _told(self, cells: Tensor, grid: Grid, other_cells: Tensor, other_grid: Grid) -> Tensor:
        """Where the matches of a view's cells lie, from where they lie here, how widely they are spread, how sure they are."""
        own, others = unpatched(cells.float(), grid, self.side).flatten(2), unpatched(other_cells.float(), other_grid, self.side).flatten(2)
        places, other_places = self.places(grid, own.device), self.places(other_grid, own.device)
        rows = max(1, LARGEST // (others.shape[0] * others.shape[2]))
        with torch.autocast(own.device.type, enabled=False):
            found = [_found(part.transpose(1, 2) @ others, other_places) for part in own.split(rows, dim=2)]
            at, spread, surest = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
            turned = [at * (torch.pi * 2**octave) for octave in range(OCTAVES)]
            waves = [wave for turn in turned for wave in (turn.sin(), turn.cos())]
            values = torch.cat([at, at - places, spread, surest, *waves], dim=-1)
            of_cells = values.transpose(1, 2).unflatten(2, (grid[0] * self.side, grid[1] * self.side))
            of_patches = F.pixel_unshuffle(of_cells, self.side).flatten(2).transpose(1, 2)
        return self.told(of_patches).float()

    def places(self, grid: Grid, device: torch.device) -> Tensor:
        """Middles of all cells, [M, 2] (down, across), in units of half the longer side, from the picture's middle."""
        counts = [self.side * count for count in grid]
        axes = [(torch.arange(count, dtype=torch.float32, device=device) * 2 + 1 - count) / max(counts) for count in counts]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)


def _found(likeness: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Likeness [B, M, K] to the mean place [B, M, 2] under its softmax, its spread and the logarithm of the greatest share, [B, M, 1]."""
    share = likeness.softmax(dim=2)
    at = share @ places
    spread = (share @ places.square() - at.square()).sum(-1, keepdim=True).clamp_min(LEAST).sqrt()
    return at, spread, share.amax(2)[..., None].clamp_min(LEAST).log()


class CellFeatures(nn.Module):
    """Convolutions down to a quarter of the picture's size."""

    def __init__(self, out: int) -> None:
        super().__init__()
        half, quarter = WIDTHS
        self.halve = nn.Conv2d(3, half, 3, stride=2, padding=1)
        self.quarter = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.units = nn.ModuleList(_NormedUnit(quarter) for _ in range(RESIDUAL_UNITS))
        self.norm = nn.GroupNorm(GROUPS, quarter)
        self.out = nn.Conv2d(quarter, out, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, D, H / 4, W / 4]"""
        dtype = self.halve.weight.dtype
        x = self.quarter(F.gelu(self.halve(images.to(dtype)))).float()  # as with tokens: what is added up is float32
        for unit in self.units:
            x = unit(x)
        return self.out(self.norm(x).to(dtype))


class _NormedUnit(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.conv1(self.norm(x).to(self.conv1.weight.dtype)))).float()
