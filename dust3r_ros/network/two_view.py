"""DUSt3R and MASt3R: two images to two pointmaps, both in the first camera's frame, with confidence and, for MASt3R, descriptors.

Wang et al., DUSt3R, CVPR 2024, section 3; Leroy et al., MASt3R, ECCV 2024, section 3. Our own code, written from the papers; the names of
the parameters are those of the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import NORM_EPS, DecoderBlock, EncoderBlock, rope_2d
from dust3r_ros.network.config import NetworkConfig, NetworkError, published
from dust3r_ros.network.heads import RAW_CHANNELS, DptHead, Grid, LinearHead, confidence_of, points_of


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """Images after the encoder, each alone: computed once, decoded with any other."""

    values: Tensor  # [B, N, encoder_width]
    grid: Grid  # rows and columns: N = rows * columns


@dataclass(frozen=True, eq=False)
class TwoViewOutput:
    """Both views' points are in camera 1's frame. float32."""

    points_1: Tensor  # [B, H1, W1, 3]
    points_2: Tensor  # [B, H2, W2, 3]
    confidence_1: Tensor  # [B, H1, W1] > 1
    confidence_2: Tensor  # [B, H2, W2] > 1
    descriptors_1: Tensor | None = None  # [B, H1, W1, D], unit length
    descriptors_2: Tensor | None = None  # [B, H2, W2, D]
    descriptor_confidence_1: Tensor | None = None  # [B, H1, W1] > 0
    descriptor_confidence_2: Tensor | None = None  # [B, H2, W2] > 0


class PatchEmbedding(nn.Module):
    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to a grid of tokens [B, C, H / P, W / P]"""
        return self.proj(images)


class TwoViewNetwork(nn.Module):
    """`encode` each image once, `decode` pairs of them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        encoder, decoder = config.encoder_width, config.decoder_width
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder))  # for masked pretraining; in every published file
        self.patch_embed = PatchEmbedding(encoder, config.patch_size)
        self.enc_blocks = nn.ModuleList(EncoderBlock(encoder, config.encoder_heads, config.mlp_ratio) for _ in range(config.encoder_depth))
        self.enc_norm = nn.LayerNorm(encoder, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(encoder, decoder)
        self.dec_blocks = self._decoder()
        self.dec_norm = nn.LayerNorm(decoder, eps=NORM_EPS)
        self.dec_blocks2 = self._decoder()
        head = LinearHead if config.head == "linear" else DptHead
        self.downstream_head1, self.downstream_head2 = head(config), head(config)

    @classmethod
    def from_config(cls, config: str | NetworkConfig) -> TwoViewNetwork:
        """By published name or by sizes; the weights are PyTorch's initial ones."""
        return cls(published(config) if isinstance(config, str) else config)

    def _decoder(self) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(
            DecoderBlock(config.decoder_width, config.decoder_heads, config.mlp_ratio) for _ in range(config.decoder_depth)
        )

    def encode(self, images: Tensor) -> ImageTokens:
        """Images [B, 3, H, W], RGB in -1..1, H and W multiples of the patch size, to tokens. Raises NetworkError for other shapes."""
        patch = self.config.patch_size
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % patch or images.shape[3] % patch or not images.numel():
            raise NetworkError(f"images of shape {tuple(images.shape)}: give (B, 3, H, W) with H and W multiples of {patch}")
        embedded = self.patch_embed(images)
        grid = (embedded.shape[2], embedded.shape[3])
        tokens = embedded.flatten(2).transpose(1, 2)
        rotation = rope_2d(*grid, self.config.encoder_width // self.config.encoder_heads, self.config.rope_base, images.device)
        for block in self.enc_blocks:
            tokens = block(tokens, rotation)
        return ImageTokens(self.enc_norm(tokens), grid)

    def decode(self, tokens_1: ImageTokens, tokens_2: ImageTokens) -> TwoViewOutput:
        """Pair by pair along the batch; the two views may differ in size."""
        levels_1, levels_2 = self.decode_levels(tokens_1, tokens_2)
        return _output(self.downstream_head1(levels_1, tokens_1.grid), self.downstream_head2(levels_2, tokens_2.grid))

    def decode_levels(self, tokens_1: ImageTokens, tokens_2: ImageTokens) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens of every level of both views: level 0 the encoder's, the last one normed."""
        if tokens_1.values.shape[0] != tokens_2.values.shape[0]:
            raise NetworkError(f"{tokens_1.values.shape[0]} images paired with {tokens_2.values.shape[0]}: give as many of each")
        head_dim, base = self.config.decoder_width // self.config.decoder_heads, self.config.rope_base
        rotation_1, rotation_2 = (rope_2d(*t.grid, head_dim, base, t.values.device) for t in (tokens_1, tokens_2))
        x, y = self.decoder_embed(tokens_1.values), self.decoder_embed(tokens_2.values)
        levels_1, levels_2 = [tokens_1.values], [tokens_2.values]
        for block_1, block_2 in zip(self.dec_blocks, self.dec_blocks2, strict=True):
            x, y = block_1(x, y, rotation_1, rotation_2), block_2(y, x, rotation_2, rotation_1)
            levels_1.append(x)
            levels_2.append(y)
        levels_1[-1], levels_2[-1] = self.dec_norm(x), self.dec_norm(y)
        return levels_1, levels_2

    def forward(self, images_1: Tensor, images_2: Tensor) -> TwoViewOutput:
        return self.decode(self.encode(images_1), self.encode(images_2))


def _output(raw_1: Tensor, raw_2: Tensor) -> TwoViewOutput:
    points = [points_of(raw[:, :3]) for raw in (raw_1, raw_2)]
    confidence = [confidence_of(raw[:, 3]) for raw in (raw_1, raw_2)]
    if raw_1.shape[1] == RAW_CHANNELS:
        return TwoViewOutput(points[0], points[1], confidence[0], confidence[1])
    descriptors = [F.normalize(raw[:, RAW_CHANNELS:-1].float().movedim(1, -1), dim=-1) for raw in (raw_1, raw_2)]
    sureness = [confidence_of(raw[:, -1], least=0.0) for raw in (raw_1, raw_2)]
    return TwoViewOutput(points[0], points[1], confidence[0], confidence[1], descriptors[0], descriptors[1], sureness[0], sureness[1])
