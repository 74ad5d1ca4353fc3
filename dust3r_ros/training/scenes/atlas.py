"""All textures in one table: layers with their mip levels, looked up with trilinear filtering for all rays in a single call."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dust3r_ros.training.scenes.config import SceneConfig
from dust3r_ros.training.scenes.materials import Groups
from dust3r_ros.training.scenes.photographs import photo_files, photo_layers
from dust3r_ros.training.scenes.textures import PATTERNS, noise

MEAN = 0.4  # linear; every layer is brought near it, so that a material's tint decides how bright it is


class Atlas:
    """Texels [M, 3] float32, linear RGB: level by level, in a level layer by layer; `groups` says which layers are what."""

    def __init__(self, layers: list[np.ndarray], groups: Groups, device: torch.device | str) -> None:
        self.groups, self.count, self.size = groups, len(layers), layers[0].shape[0]
        level = torch.from_numpy(np.stack(layers)).permute(0, 3, 1, 2)
        level = torch.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)  # sRGB to linear
        level = level * (MEAN / level.mean(dim=(1, 2, 3), keepdim=True).clamp_min(0.05)).sqrt()
        texels, starts = [], [0]
        while True:
            texels.append(level.permute(0, 2, 3, 1).reshape(-1, 3))
            starts.append(starts[-1] + len(texels[-1]))
            if level.shape[-1] == 1:
                break
            level = functional.avg_pool2d(level, 2)
        self.levels = len(texels)
        self.texels = torch.cat(texels).to(device)
        self.starts = torch.tensor(starts[:-1], device=device)

    @staticmethod
    def of(config: SceneConfig, device: torch.device | str) -> Atlas:
        """Noise, patterns and photographs as `config` asks; always the same ones for the same settings and pictures."""
        size, rng = config.layer_size, np.random.default_rng([20240, config.layer_size])
        layers = [noise(size, rng) for _ in range(config.noise_layers)]
        groups = {"noise": (0, len(layers))}
        each = config.pattern_layers // len(PATTERNS)
        for name, pattern in PATTERNS.items():
            groups[name] = (len(layers), each)
            layers += [pattern(size, rng) for _ in range(each)]
        photos = photo_layers(photo_files(config.photos), config.photo_layers, size, rng) if config.photo_layers else []
        if photos:
            groups["photo"] = (len(layers), len(photos))
        return Atlas(layers + photos, groups, device)

    def sample(self, layer: Tensor, u: Tensor, v: Tensor, level: Tensor, weight: Tensor) -> Tensor:
        """Linear RGB [N, 3]: the sum over K textures of `weight` times the texture, all arguments [N, K].

        `layer` int64; `u`, `v` in tiles; `level` the mip level, fractional.
        """
        level = level.clamp(0, self.levels - 1.001)
        fine = level.floor()
        share = level - fine
        index, factor = [], []
        for step, part in ((0, 1 - share), (1, share)):
            number = fine.long() + step
            rows = torch.bitwise_right_shift(torch.full_like(number, self.size), number)
            start = self.starts[number] + layer * rows * rows
            x, y = ((value - value.floor()) * rows - 0.5 for value in (u, v))
            left, top = x.floor(), y.floor()
            right_share, low_share = x - left, y - top
            column, row = left.long(), top.long()
            mask = rows - 1  # sizes are powers of two, so that tiling is a bit mask
            columns, lines = (column & mask, (column + 1) & mask), ((row & mask) * rows, ((row + 1) & mask) * rows)
            for line, down in zip(lines, (1 - low_share, low_share), strict=True):
                for place, across in zip(columns, (1 - right_share, right_share), strict=True):
                    index.append(start + line + place)
                    factor.append(weight * part * down * across)
        return functional.embedding_bag(torch.cat(index, 1), self.texels, mode="sum", per_sample_weights=torch.cat(factor, 1))
