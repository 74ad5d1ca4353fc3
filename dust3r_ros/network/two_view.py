"""DUSt3R and MASt3R: two images to two pointmaps, both in the first camera's frame, with confidence and, for MASt3R, descriptors.

Wang et al., DUSt3R, CVPR 2024, section 3; Leroy et al., MASt3R, ECCV 2024, section 3. Our own code, written from the papers; the names of
the parameters are those of the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import NORM_EPS, DecoderBlock, EncoderBlock, Rotation, precise, rope_2d
from dust3r_ros.network.camera_head import CameraHead
from dust3r_ros.network.config import NetworkConfig, NetworkError, named
from dust3r_ros.network.heads import DptHead, Grid, LinearHead, Pointmap, confidence_of
from dust3r_ros.network.pair_geometry import GeometryEstimation, PairGeometry, ViewAlone
from dust3r_ros.network.patch_embedding import ConvolutionStem, PatchEmbedding, PlaceEmbedding


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """Images after the encoder, each alone: computed once, decoded with any other."""

    values: Tensor  # [B, N, token_width]: the encoder's, then what their cells are matched by, where the network matches cells
    grid: Grid  # rows and columns: N = rows * columns
    details: tuple[Tensor | None, Tensor | None] = (None, None)  # what the heads of view 1 and 2 make of these alone; None: not yet
    # [B, 3]: focal length, 0 where nobody measured it, and where the principal point lies from the picture's middle (across, down); pixels.
    # Networks that match cells use it. None: nobody measured any
    lens: Tensor | None = None


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
    # [B, 14], where cameras are found from matches: camera 2 in camera 1's frame, its rotation row by row and its translation in the
    # points' unit, then one sigma of an axis of each (radians, the points' unit) as if all matches erred on their own
    motion: Tensor | None = None

    def parts(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def pair(self, index: int) -> TwoViewOutput:
        """One pair of the batch, as a batch of one."""
        return TwoViewOutput(**{name: value[index : index + 1] for name, value in self.parts().items()})


class TwoViewNetwork(nn.Module):
    """`encode` each image once, `decode` pairs of them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.looks_at_images = True  # for NaN: a wait for the device, which training spares itself
        encoder, decoder = config.encoder_width, config.decoder_width
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder))  # for masked pretraining; in every published file
        self.patch_embed = PatchEmbedding(encoder, config.inner_patch)
        self.place_embed = PlaceEmbedding(encoder) if config.coordinates else None
        self.enc_blocks = nn.ModuleList(EncoderBlock(encoder, config.encoder_heads, config.mlp_ratio) for _ in range(config.encoder_depth))
        self.enc_norm = nn.LayerNorm(encoder, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(encoder, decoder)
        self.dec_blocks = self._decoder()
        self.dec_norm = nn.LayerNorm(decoder, eps=NORM_EPS)
        self.dec_blocks2 = self._decoder()
        self.stem = ConvolutionStem(encoder, config.inner_patch) if config.stem else None
        self.geometry = GeometryEstimation(config) if config.match_width else None
        self.downstream_head1, self.downstream_head2 = _head(config, is_first=True), _head(config, is_first=False)

    @classmethod
    def from_config(cls, config: str | NetworkConfig) -> TwoViewNetwork:
        """By name (published, or our own) or by sizes; the weights are PyTorch's initial ones."""
        return cls(named(config) if isinstance(config, str) else config)

    def to_precision(self, dtype: torch.dtype) -> TwoViewNetwork:
        """Weights of the matrix products and convolutions as `dtype`; norms, and the layers that make points and confidence, in float32."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.to(dtype)
        for head in (self.downstream_head1, self.downstream_head2):
            for layer in head.last_layers:
                layer.float()
        return self

    def channels_last(self) -> TwoViewNetwork:
        """Convolutions' weights as their inputs lie: tokens are channels last."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
        return self

    def _decoder(self) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(
            DecoderBlock(config.decoder_width, config.decoder_heads, config.mlp_ratio) for _ in range(config.decoder_depth)
        )

    def encode(self, images: Tensor, lens: Tensor | None = None) -> ImageTokens:
        """Images [B, 3, H, W], RGB in -1..1, H and W multiples of the patch size, to tokens. Raises NetworkError for other shapes.

        lens: as `ImageTokens` has it; a network that matches no cells makes nothing of it.
        """
        tokens, rotation, grid = self.embed(images)
        tokens = self.encode_tokens(tokens, rotation)
        if self.geometry is not None:
            cells = self.geometry.matching.cells(self._shrunk(images), images, tokens)
            tokens = torch.cat([tokens, cells.to(tokens.dtype)], dim=-1)
        return ImageTokens(tokens, grid, lens=lens)

    def alone(self, images: Tensor) -> ViewAlone:
        """What images [B, 3, H, W] say one by one of their depths and focal lengths, where cells are matched: the adjustment's priors.

        They come in the size that all but details are seen in, and their lenses are not known.
        """
        assert self.geometry is not None
        tokens, rotation, grid = self._embedded(images)
        nothing = torch.zeros(len(images), 3, device=images.device)
        return self.geometry.alone(self.encode_tokens(tokens, rotation), grid, nothing, (images.shape[2], images.shape[3]))

    def embed(self, images: Tensor) -> tuple[Tensor, Rotation, Grid]:
        """Images as above to tokens [B, N, C] before the encoder, and how each turns by its place."""
        self._check(images)
        return self._embedded(self._shrunk(images))

    def _embedded(self, images: Tensor) -> tuple[Tensor, Rotation, Grid]:
        embedded = self.patch_embed(images)
        grid = (embedded.shape[2], embedded.shape[3])
        if self.stem is not None:
            embedded = embedded + self.stem(images)
        tokens = embedded.flatten(2).transpose(1, 2).float()  # the residual stream is float32 at any precision
        if self.place_embed is not None:
            tokens = tokens + self.place_embed(grid, images.device)
        rotation = rope_2d(*grid, self.config.encoder_width // self.config.encoder_heads, self.config.rope_base, images.device)
        return tokens, rotation, grid

    def _shrunk(self, images: Tensor) -> Tensor:
        """As all but details are seen in."""
        return F.avg_pool2d(images, self.config.shrink) if self.config.shrink > 1 else images

    def _check(self, images: Tensor) -> None:
        patch = self.config.patch_size
        if not isinstance(images, Tensor):
            raise NetworkError(
                f"images as {type(images).__name__}: give one tensor (B, 3, H, W); images of other sizes go in a call of their own"
            )
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % patch or images.shape[3] % patch or not images.numel():
            raise NetworkError(f"images of shape {tuple(images.shape)}: give (B, 3, H, W) with H and W multiples of {patch}")
        if not images.is_floating_point():
            raise NetworkError(f"images of {images.dtype}: give real numbers, (rgb / 255 - 0.5) / 0.5")
        if (
            not self.looks_at_images
            or images.is_meta
            or torch.compiler.is_compiling()
            or (images.is_cuda and torch.cuda.is_current_stream_capturing())
        ):
            return  # nothing can look at values there
        if not bool(torch.isfinite(images.sum())):
            raise NetworkError("images with NaN or infinite values: every token would become NaN; give finite ones")

    def encode_tokens(self, tokens: Tensor, rotation: Rotation) -> Tensor:
        """Embedded tokens [B, N, C], any of an image, through the encoder."""
        for block in self.enc_blocks:
            tokens = block(tokens, rotation)
        return self.enc_norm(tokens)

    def detail(self, tokens: ImageTokens, side: int) -> Tensor | None:
        """What head `side` (0: view 1, 1: view 2) makes of an image's tokens whatever it is paired with; None if it makes nothing of them.

        A fifth of the DPT head's work: keep it in the tokens' `details` and every pair of that image is spared it.
        """
        head = (self.downstream_head1, self.downstream_head2)[side]
        return head.detail(self.encoded(tokens), tokens.grid) if isinstance(head, DptHead) else None

    def decode(self, tokens_1: ImageTokens, tokens_2: ImageTokens, descriptors: bool = True, mirrored: bool = False) -> TwoViewOutput:
        """Pair by pair along the batch; the two views may differ in size. `descriptors` False leaves MASt3R's out.

        `mirrored`: every second pair is the one before it, the other way round: what the matches of both say is found once.
        """
        return self.decoded(tokens_1, tokens_2, self.geometry_of(tokens_1, tokens_2, mirrored), descriptors)

    def decoded(
        self, tokens_1: ImageTokens, tokens_2: ImageTokens, geometry: PairGeometry | None, descriptors: bool = True
    ) -> TwoViewOutput:
        """What comes after `geometry_of` in `decode`."""
        return self.output(self.decode_levels(tokens_1, tokens_2, geometry), tokens_1, tokens_2, descriptors, geometry)

    def geometry_of(self, tokens_1: ImageTokens, tokens_2: ImageTokens, mirrored: bool = False) -> PairGeometry | None:
        """What the pairs' matches say; None where the network does not match. `mirrored` as in `decode`."""
        if self.geometry is None:
            return None
        self._check_pairs(tokens_1, tokens_2)
        every = slice(None, None, 2 if mirrored else 1)
        values = tokens_1.values[every], tokens_2.values[every]
        lenses = _lens(tokens_1)[every] / self.config.shrink, _lens(tokens_2)[every] / self.config.shrink
        encoded, cells = zip(*(side.tensor_split((self.config.encoder_width,), dim=-1) for side in values), strict=True)
        geometry: PairGeometry = self.geometry(encoded, cells, (tokens_1.grid, tokens_2.grid), lenses)
        return geometry.mirrored() if mirrored else geometry

    def output(
        self,
        sides: tuple[list[Tensor], list[Tensor]],
        tokens_1: ImageTokens,
        tokens_2: ImageTokens,
        descriptors: bool = True,
        geometry: PairGeometry | None = None,
    ) -> TwoViewOutput:
        """What the heads make of all levels of both views. `geometry` as `geometry_of` has it; None has it made."""
        geometry = self.geometry_of(tokens_1, tokens_2) if geometry is None else geometry
        heads, tokens = (self.downstream_head1, self.downstream_head2), (tokens_1, tokens_2)
        points, confidence = zip(*(self._pointmap(at, sides[at], tokens[at], geometry) for at in (0, 1)), strict=True)
        motion = self._motion(sides[1], geometry)
        if not (descriptors and self.config.descriptor_width):
            return TwoViewOutput(points[0], points[1], confidence[0], confidence[1], motion=motion)
        local = [
            head.local_features(levels, t.grid) for head, levels, t in zip(heads, sides, tokens, strict=True) if isinstance(head, DptHead)
        ]
        unit = [F.normalize(r[:, :-1].float().movedim(1, -1), dim=-1) for r in local]
        sure = [confidence_of(r[:, -1], least=0.0) for r in local]
        return TwoViewOutput(points[0], points[1], confidence[0], confidence[1], unit[0], unit[1], sure[0], sure[1], motion)

    def output_names(self, descriptors: bool) -> tuple[str, ...]:
        """Of `decode`'s parts, in their order."""
        names = ["points_1", "points_2", "confidence_1", "confidence_2"]
        if descriptors and self.config.descriptor_width:
            names += ["descriptors_1", "descriptors_2", "descriptor_confidence_1", "descriptor_confidence_2"]
        return (*names, "motion") if isinstance(self.downstream_head2, CameraHead) else tuple(names)

    def _motion(self, levels: list[Tensor], geometry: PairGeometry | None) -> Tensor | None:
        head = self.downstream_head2
        return head.motion(levels, geometry) if isinstance(head, CameraHead) and geometry is not None else None

    def _pointmap(self, side: int, levels: list[Tensor], tokens: ImageTokens, geometry: PairGeometry | None) -> Pointmap:
        head = (self.downstream_head1, self.downstream_head2)[side]
        if not isinstance(head, CameraHead):
            return head.pointmap(levels, tokens.grid, tokens.details[side])
        assert self.geometry is not None
        assert geometry is not None
        return head.pointmap(levels, tokens.grid, geometry, self.geometry.matching.unpacked(self.cells(tokens), tokens.grid))

    def _check_pairs(self, tokens_1: ImageTokens, tokens_2: ImageTokens) -> None:
        if tokens_1.values.shape[0] != tokens_2.values.shape[0]:
            raise NetworkError(f"{tokens_1.values.shape[0]} images paired with {tokens_2.values.shape[0]}: give as many of each")

    def decode_levels(
        self, tokens_1: ImageTokens, tokens_2: ImageTokens, geometry: PairGeometry | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens of every level of both views: level 0 the encoder's, the last one normed. `geometry`: None has it made."""
        self._check_pairs(tokens_1, tokens_2)
        geometry = self.geometry_of(tokens_1, tokens_2) if geometry is None else geometry
        rotation_1, rotation_2 = (self.decoder_rotation(t.grid, t.values.device) for t in (tokens_1, tokens_2))
        encoded_1, encoded_2 = self.encoded(tokens_1), self.encoded(tokens_2)
        x, y = (self.decoder_embed(precise(self.decoder_embed, encoded)).float() for encoded in (encoded_1, encoded_2))
        if self.geometry is not None and geometry is not None:
            told_1, told_2 = self.geometry.told(geometry, (tokens_1.grid, tokens_2.grid))
            x, y = x + told_1, y + told_2
        levels_1, levels_2 = [encoded_1], [encoded_2]
        for block_1, block_2 in zip(self.dec_blocks, self.dec_blocks2, strict=True):
            x, y = block_1(x, y, rotation_1, rotation_2), block_2(y, x, rotation_2, rotation_1)
            levels_1.append(x)
            levels_2.append(y)
        levels_1[-1], levels_2[-1] = self.dec_norm(x), self.dec_norm(y)
        return levels_1, levels_2

    def encoded(self, tokens: ImageTokens) -> Tensor:
        """The encoder's tokens, [B, N, encoder_width]."""
        return tokens.values[..., : self.config.encoder_width]

    def cells(self, tokens: ImageTokens) -> Tensor:
        """What the patches' cells are matched by; of no width where the network does not match them."""
        return tokens.values[..., self.config.encoder_width :]

    def decoder_rotation(self, grid: Grid, device: torch.device) -> Rotation:
        """How the decoders' queries and keys of a grid of tokens turn."""
        return rope_2d(*grid, self.config.decoder_width // self.config.decoder_heads, self.config.rope_base, device)

    def forward(self, images_1: Tensor, images_2: Tensor) -> TwoViewOutput:
        return self.decode(self.encode(images_1), self.encode(images_2))


def _lens(tokens: ImageTokens) -> Tensor:
    return torch.zeros(len(tokens.values), 3, device=tokens.values.device) if tokens.lens is None else tokens.lens


def _head(config: NetworkConfig, is_first: bool) -> LinearHead | DptHead | CameraHead:
    if config.head == "camera":
        return CameraHead(config, is_first)
    return LinearHead(config) if config.head == "linear" else DptHead(config)
