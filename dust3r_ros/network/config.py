"""Sizes and heads of a two-view network, and the four that are published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dust3r_ros.errors import Dust3rError

HeadType = Literal["linear", "dpt", "catmlp+dpt", "camera"]
HEADS: tuple[HeadType, ...] = ("linear", "dpt", "catmlp+dpt", "camera")
MATCHED_CELL = 4  # pixels
GROUPS = 8  # that channels of convolutions are normed in
FINE_WIDTH = 32  # channels that the places between cells are told apart by, two pixels apart
HALVED = 2  # what networks that look at details divide a picture's size by for all else
ANY_PATCH = ("linear", "camera")  # heads that are not made for patches of 16 pixels alone


class NetworkError(Dust3rError):
    """A network that cannot be built, or an image that it cannot take."""


@dataclass(frozen=True)
class NetworkConfig:
    """Widths in channels, depths in blocks. The default is the published size (ViT-L encoder, two base decoders)."""

    encoder_width: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    decoder_width: int = 768
    decoder_depth: int = 12
    decoder_heads: int = 12
    patch_size: int = 16
    head: HeadType = "dpt"
    head_width: int = 256  # channels that the DPT head fuses its levels in; its other widths go with it
    descriptor_width: int = 0  # channels of a pixel's descriptor (MASt3R: 24); 0: none
    mlp_ratio: int = 4
    rope_base: float = 100.0
    coordinates: bool = False  # patches are told where in the picture they lie; the published networks have to find out
    stem: bool = False  # convolutions beside the patch embedding
    match_width: int = 0  # channels by which cells of 4 x 4 pixels are matched before the decoders; 0: these find matches themselves
    detail_width: int = 0  # channels by which matches and depths are told in the whole picture, all else in the halved one; 0: in one size
    tracked: bool = False  # patches around cells are tracked at the end, by the pictures' own values
    image_size: int = 512  # the longer side that the network was trained for, pixels
    square: bool = False  # trained on squares of that side alone

    def __post_init__(self) -> None:
        for side, width, heads in (
            ("encoder", self.encoder_width, self.encoder_heads),
            ("decoder", self.decoder_width, self.decoder_heads),
        ):
            if heads < 1 or width % (4 * heads):
                raise NetworkError(f"{side} of width {width} with {heads} heads: the width must be a multiple of 4 x heads (2D RoPE)")
        if self.head not in HEADS:
            raise NetworkError(f"no head is called '{self.head}': give one of {', '.join(HEADS)}")
        if (self.head == "catmlp+dpt") != (self.descriptor_width > 0):
            raise NetworkError(
                f"head '{self.head}' with descriptors of {self.descriptor_width} channels: catmlp+dpt has them, the others not"
            )
        if self.head_width < 8 or self.head_width % 8:
            raise NetworkError(f"a DPT head of width {self.head_width}: give a multiple of 8, its finest level has 3/8 of it")
        if self.head not in ANY_PATCH and self.patch_size != 16:
            raise NetworkError(f"head '{self.head}' with patches of {self.patch_size} pixels: it is made for 16; give linear or camera")
        if self.stem and self.patch_size & (self.patch_size - 1):
            raise NetworkError(f"a stem with patches of {self.patch_size} pixels: its convolutions halve the picture; give a power of 2")
        if self.head == "camera" and not self.match_width:
            raise NetworkError("a camera head without match_width: it takes the cameras from what is matched; give match_width too")
        if self.tracked and not self.match_width:
            raise NetworkError("tracked patches without match_width: they begin where cells are matched; give match_width too")
        if self.match_width and self.patch_size % MATCHED_CELL:
            raise NetworkError(f"patches of {self.patch_size} pixels matched in cells of {MATCHED_CELL}: give a multiple of that")
        if self.detail_width and (self.head != "camera" or self.patch_size % (HALVED * MATCHED_CELL) or self.detail_width % GROUPS):
            raise NetworkError(
                f"details of {self.detail_width} channels with head '{self.head}' and patches of {self.patch_size} pixels: "
                f"give a camera head, a multiple of {GROUPS} channels, and of {HALVED * MATCHED_CELL} pixels"
            )

    @property
    def shrink(self) -> int:
        """How many of the picture's pixels make one of those that all but details are seen in."""
        return HALVED if self.detail_width else 1

    @property
    def inner_patch(self) -> int:
        """A patch's side in the picture as all but details are seen in."""
        return self.patch_size // self.shrink

    @property
    def token_width(self) -> int:
        """Channels of what is kept of a patch after the encoder: its token, and what its cells are matched by."""
        if not self.match_width:
            return self.encoder_width
        cells = (self.inner_patch // MATCHED_CELL) ** 2
        of_cells = cells * (2 * self.match_width + 4 * FINE_WIDTH + MATCHED_CELL**2 * self.detail_width)
        return self.encoder_width + of_cells + self.tracked * self.patch_size**2

    @property
    def levels(self) -> tuple[int, int, int, int]:
        """Levels that the DPT head looks at: 0 is the encoder, n the n-th decoder block."""
        depth = self.decoder_depth
        return (0, depth // 2, 3 * depth // 4, depth)


PUBLISHED: dict[str, NetworkConfig] = {
    "dust3r_224_linear": NetworkConfig(head="linear", image_size=224, square=True),
    "dust3r_512_linear": NetworkConfig(head="linear"),
    "dust3r_512_dpt": NetworkConfig(head="dpt"),
    "mast3r_512_catmlpdpt": NetworkConfig(head="catmlp+dpt", descriptor_width=24),
}

# Our own, small enough to travel inside the package, for two CPU cores to run, and to train a little. What larger networks learn from tens
# of millions of pairs it is given: where a patch lies, which ones match, and that a pointmap is a depth map and a camera.
NANO = NetworkConfig(
    encoder_width=192,
    encoder_depth=6,
    encoder_heads=3,
    decoder_width=128,
    decoder_depth=4,
    decoder_heads=2,
    patch_size=16,
    head="camera",
    coordinates=True,
    stem=True,
    match_width=32,
    detail_width=16,
    tracked=True,
    image_size=224,
)
OWN: dict[str, NetworkConfig] = {"dust3r_nano": NANO}


def named(name: str) -> NetworkConfig:
    """The configuration of a network of ours or of a published one. Raises NetworkError for another name."""
    return OWN[name] if name in OWN else published(name)


def published(name: str) -> NetworkConfig:
    """The configuration of a published network. Raises NetworkError for another name."""
    if name not in PUBLISHED:
        raise NetworkError(f"no published network is called '{name}': give one of {', '.join(PUBLISHED)}")
    return PUBLISHED[name]
