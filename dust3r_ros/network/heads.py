"""From tokens to a value for every pixel: linear, dense prediction transformer (Ranftl et al., ICCV 2021), and MASt3R's descriptors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import Mlp
from dust3r_ros.network.config import NetworkConfig

LEVEL_SHARES = (3, 6, 12, 24)  # eighths of the fused width: 96, 192, 384, 768 of 256
RAW_CHANNELS = 4  # x, y, z, confidence
MIN_DISTANCE = 1e-8

START_SPREAD = 0.02

Grid = tuple[int, int]  # rows and columns of tokens
Pointmap = tuple[Tensor, Tensor]  # points [B, H, W, 3] and confidence [B, H, W], float32


class LinearHead(nn.Module):
    """Every token gives the pixels of its own patch."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.proj = nn.Linear(config.decoder_width, RAW_CHANNELS * config.patch_size**2)

    def forward(self, levels: Sequence[Tensor], grid: Grid, detail: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Tokens of every level, each [B, N, C], to raw values [B, 4, H, W]."""
        return unpatched(exact(self.proj, levels[-1]), grid, self.patch_size)

    def pointmap(self, levels: Sequence[Tensor], grid: Grid, detail: Tensor | None = None) -> Pointmap:
        """Tokens of every level to points and their confidence."""
        return pointmap_of(self(levels, grid, detail))

    @property
    def last_layers(self) -> Sequence[nn.Module]:
        return (self.proj,)

    @torch.no_grad()
    def start_flat(self, depth: float) -> None:
        """The first pointmap is a wall: `depth` is its raw z."""
        start_small(self.proj).view(RAW_CHANNELS, -1)[2] = depth


class DptHead(nn.Module):
    """Four levels, fused from coarse to fine; with descriptors beside, where the configuration has them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.levels = config.levels
        self.dpt = _Dpt([config.encoder_width] + 3 * [config.decoder_width], config.head_width)
        self.patch_size = config.patch_size
        if config.descriptor_width:
            width = config.encoder_width + config.decoder_width
            self.head_local_features = Mlp(width, config.mlp_ratio * width, (config.descriptor_width + 1) * config.patch_size**2)

    def detail(self, tokens: Tensor, grid: Grid) -> Tensor:
        """What the finest fusion adds, [B, head_width, 4h, 4w], of the encoder's tokens [B, N, C] alone, one for all its pairs."""
        return self.dpt.detail(self._map(tokens, grid))

    def forward(self, levels: Sequence[Tensor], grid: Grid, detail: Tensor | None = None) -> Tensor:
        """Tokens of every level, each [B, N, C], to raw values [B, 4, H, W]; `detail` as above, or None to have it made."""
        coarse = [self._map(levels[n], grid) for n in self.levels[1:]]
        return self.dpt(self.detail(levels[0], grid) if detail is None else detail, coarse)

    def pointmap(self, levels: Sequence[Tensor], grid: Grid, detail: Tensor | None = None) -> Pointmap:
        """Tokens of every level to points and their confidence."""
        return pointmap_of(self(levels, grid, detail))

    def local_features(self, levels: Sequence[Tensor], grid: Grid) -> Tensor:
        """Raw descriptors and their confidence, [B, D + 1, H, W]."""
        first, last = levels[0], levels[-1]
        local = self.head_local_features(torch.cat([first, last.to(first.dtype)], dim=-1))
        return unpatched(local, grid, self.patch_size)

    def _map(self, tokens: Tensor, grid: Grid) -> Tensor:
        return tokens.to(self.dpt.scratch.layer1_rn.weight.dtype).transpose(1, 2).unflatten(2, grid)  # channels last, as they lie

    @property
    def last_layers(self) -> Sequence[nn.Module]:
        return (self.dpt.head[-1],)

    @torch.no_grad()
    def start_flat(self, depth: float) -> None:
        """The first pointmap is a wall: `depth` is its raw z."""
        start_small(self.dpt.head[-1]).view(RAW_CHANNELS, -1)[2] = depth


class _Dpt(nn.Module):
    def __init__(self, widths: Sequence[int], fused: int) -> None:
        super().__init__()
        a, b, c, d = levels = [share * fused // 8 for share in LEVEL_SHARES]
        last = fused // 2
        self.scratch = _Scratch(levels, fused)
        self.head = nn.Sequential(
            nn.Conv2d(fused, last, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(last, last, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(last, RAW_CHANNELS, 1),
        )
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(widths[0], a, 1), nn.ConvTranspose2d(a, a, 4, stride=4)),
                nn.Sequential(nn.Conv2d(widths[1], b, 1), nn.ConvTranspose2d(b, b, 2, stride=2)),
                nn.Sequential(nn.Conv2d(widths[2], c, 1)),
                nn.Sequential(nn.Conv2d(widths[3], d, 1), nn.Conv2d(d, d, 3, stride=2, padding=1)),
            ]
        )

    def detail(self, finest: Tensor) -> Tensor:
        return self.scratch.refinenet1.resConfUnit1(self.scratch.layer_rn[0](self.act_postprocess[0](finest)))

    def forward(self, detail: Tensor, coarse: Sequence[Tensor]) -> Tensor:
        fine, middle, coarsest = (
            rn(post(level)) for rn, post, level in zip(self.scratch.layer_rn[1:], self.act_postprocess[1:], coarse, strict=True)
        )
        path = self.scratch.refinenet4(coarsest)
        path = path[..., : middle.shape[-2], : middle.shape[-1]]  # odd token counts
        path = self.scratch.refinenet3(path, self.scratch.refinenet3.resConfUnit1(middle))
        path = self.scratch.refinenet2(path, self.scratch.refinenet2.resConfUnit1(fine))
        path = self.scratch.refinenet1(path, detail)
        *layers, last = self.head
        for layer in layers:
            path = layer(path)
        return exact(last, path)


class _Scratch(nn.Module):
    def __init__(self, levels: Sequence[int], fused: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, fused, 3, padding=1, bias=False) for width in levels]
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = convolutions
        self.layer_rn = nn.ModuleList(convolutions)  # the published files name these four twice
        self.refinenet1, self.refinenet2, self.refinenet3, self.refinenet4 = (_Fusion(fused) for _ in range(4))


class _Fusion(nn.Module):
    def __init__(self, fused: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(fused, fused, 1)
        self.resConfUnit1 = _ResidualUnit(fused)
        self.resConfUnit2 = _ResidualUnit(fused)

    def forward(self, path: Tensor, skip: Tensor | None = None) -> Tensor:
        """`skip`: what the finer level adds, after its own residual unit."""
        path = path if skip is None else path + skip
        # The 1x1 convolution and the interpolation (whose weights sum to 1) commute: first is a quarter of the work.
        return F.interpolate(self.out_conv(self.resConfUnit2(path)), scale_factor=2, mode="bilinear", align_corners=True)


class _ResidualUnit(nn.Module):
    def __init__(self, fused: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fused, fused, 3, padding=1)
        self.conv2 = nn.Conv2d(fused, fused, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def exact(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer that makes points and confidence keeps its weights' precision, also where training lowers that of all others."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(next(layer.parameters()).dtype))


def unpatched(values: Tensor, grid: Grid, patch_size: int) -> Tensor:
    """[B, N, C * P * P] to [B, C, H, W]: channel-major within a patch."""
    return F.pixel_shuffle(values.transpose(1, 2).unflatten(2, grid), patch_size)


def start_small(layer: nn.Module, spread: float = START_SPREAD) -> Tensor:
    """A last layer that at first says nearly the same of everything: its bias, which is returned."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=spread)
    nn.init.zeros_(layer.bias)
    return layer.bias


def pointmap_of(raw: Tensor) -> Pointmap:
    """Raw values [B, 4, H, W] of a head to points and confidence."""
    return points_of(raw[:, :3]), confidence_of(raw[:, 3])


def points_of(raw: Tensor) -> Tensor:
    """Raw [B, 3, H, W] to points [B, H, W, 3]: the direction stands, the length d becomes exp(d) - 1. In float32."""
    raw = raw.float().movedim(1, -1)
    distance = raw.norm(dim=-1, keepdim=True)
    return raw / distance.clamp(min=MIN_DISTANCE) * torch.expm1(distance)


def confidence_of(raw: Tensor, least: float = 1.0) -> Tensor:
    """Raw [B, H, W] to a confidence above `least`. In float32."""
    return least + raw.float().exp()
