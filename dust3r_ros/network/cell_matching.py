"""Where the other view sees the middle of every cell of four by four pixels, how surely, and whether at all: found before the decoders.

Large networks learn to find matches from millions of pairs; small ones, trained on little, hardly begin to. First the likeness of all cells
with all, as in GMFlow (Xu et al., CVPR 2022); then, again and again, a look at the places around what was found at half of the picture's
size, and at the size itself where it is there at twice that (`match_refinement`). Pixels are those of the smaller picture.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import precise
from dust3r_ros.network.config import FINE_WIDTH, MATCHED_CELL, NetworkConfig
from dust3r_ros.network.heads import Grid, unpatched
from dust3r_ros.network.image_features import ImageFeatures
from dust3r_ros.network.match_refinement import DETAIL_CELL, FINE_CELL, Cells, Look, MatchRefinement, Pairing
from dust3r_ros.network.patch_tracking import PatchTracking

LOOKS = 2
BESIDE = 8.0  # pixels outside of the picture where there is nothing to look at any more
NEAR_BEST = 2  # cells around the most alike one whose mean is the first place
FIRST_SHARPNESS = (math.log(1 / 0.07), 0.0)  # of the convolutions' likeness, and the tokens'
SHARPEST = math.log(100.0)
LARGEST = 1 << 25  # likenesses at a time, 128 MB: those of large pictures grow with the fourth power of their side


class CellMatching(nn.Module):
    """`cells` of an image alone, then for a pair where each lies in the other view."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.side = config.inner_patch // MATCHED_CELL
        self.width, self.detail_width = config.match_width, config.detail_width
        self.features = ImageFeatures(config.match_width, FINE_WIDTH, config.detail_width)
        self.proj = nn.Linear(config.encoder_width, config.match_width * self.side**2)
        self.sharpness = nn.Parameter(torch.tensor(FIRST_SHARPNESS))
        self.refinement = MatchRefinement(2 * config.match_width, FINE_CELL)
        self.details = MatchRefinement(2 * config.match_width, DETAIL_CELL) if config.detail_width else None
        self.patch_size = config.patch_size
        self.tracking = PatchTracking() if config.tracked else None

    def cells(self, images: Tensor, larger: Tensor, tokens: Tensor) -> Tensor:
        """Images and their encoder tokens [B, N, C] to what each patch's cells are known by, [B, N, cells_width]. float32.

        larger: the same images at twice the size, where details are looked at. Of a cell: two vectors of D, as long as the root of how
        much they weigh, so that the product with another's is the likeness; then the fine vectors of its places, and those of its details;
        and where patches are tracked, the patch's own grey values.
        """
        coarse, fine, detail = self.features(images, larger)
        of_tokens = F.normalize(self.proj(precise(self.proj, tokens)).float().unflatten(2, (-1, self.side**2)), dim=2)
        weight_1, weight_2 = self.sharpness.float().clamp(max=SHARPEST).mul(0.5).exp()
        sides = ((coarse, self.side), (fine, 2 * self.side), (detail, MATCHED_CELL * self.side))
        packed = [F.pixel_unshuffle(values, side).flatten(2).transpose(1, 2) for values, side in sides if values.shape[1]]
        if self.tracking is not None:
            packed.append(F.pixel_unshuffle(larger.float().mean(1, keepdim=True), self.patch_size).flatten(2).transpose(1, 2))
        return torch.cat([packed[0] * weight_1, of_tokens.flatten(2) * weight_2, *packed[1:]], dim=-1)

    def unpacked(self, values: Tensor, grid: Grid) -> Cells:
        """The same again as maps."""
        sides = (self.side, 2 * self.side, MATCHED_CELL * self.side, self.patch_size)
        channels = (2 * self.width, FINE_WIDTH, self.detail_width, int(self.tracking is not None))
        widths = [width * side**2 for width, side in zip(channels, sides, strict=True)]
        return Cells(*(unpatched(part, grid, side) for part, side in zip(values.float().split(widths, dim=-1), sides, strict=True)))

    def likeness(self, one: Cells, two: Cells) -> Tensor:
        """[B, M1, M2] of all cells, row by row of the pictures' cells: what the softmax is taken of. float32."""
        with torch.autocast(one.coarse.device.type, enabled=False):
            return one.coarse.flatten(2).transpose(1, 2) @ two.coarse.flatten(2)

    def pairings(self, one: Cells, two: Cells) -> list[Pairing]:
        """View 1's cells in view 2, then view 2's in view 1; one after the other in a single batch where both have one size."""
        if one.size != two.size:
            return [Pairing.of(one, two), Pairing.of(two, one)]
        return [Pairing.of(one.followed_by(two), two.followed_by(one))]

    def forward(self, pairings: list[Pairing]) -> tuple[list[Look], list[Look]]:
        """The first looks at the cells of view 1, and of view 2."""
        return _of_views([self._looks(self.refinement, pairing, *first_found(pairing), LOOKS) for pairing in pairings])

    def again(
        self, pairings: list[Pairing], looks: tuple[Look, Look], missed: tuple[Tensor, Tensor], count: int
    ) -> tuple[list[Look], list[Look]]:
        """`count` more, from where all cells together say that each is: `missed` [B, M, 2] away from where it was found."""
        others = (pairings[0].other, pairings[-1].other)
        starts = [self._start(look, missed_by, other) for look, missed_by, other in zip(looks, missed, others, strict=True)]
        shares, memories = [look.share for look in looks], [look.memory for look in looks]
        if len(pairings) == 1:
            starts, shares, memories = [torch.cat(starts)], [torch.cat(shares)], [torch.cat(memories)]
        return _of_views([self._again(*given, count) for given in zip(pairings, starts, shares, memories, strict=True)])

    def tracked(self, pairings: list[Pairing], looks: tuple[Look, Look]) -> tuple[list[Look], list[Look]]:
        """The last of each view's, with its patches tracked; none where that is not done."""
        if self.tracking is None:
            return [], []
        if len(pairings) == 2:
            return [self._tracked(pairings[0], looks[0])], [self._tracked(pairings[1], looks[1])]
        one, two = self._tracked(pairings[0], looks[0].followed_by(looks[1])).halves()
        return [one], [two]

    def _tracked(self, pairing: Pairing, look: Look) -> Look:
        assert self.tracking is not None
        pictures = pairing.own.grey[:, 0], pairing.other.grey[:, 0]
        places, grid = places_of(*pairing.own.size, look.found.device), pairing.own.coarse.shape[2:]
        found, log_error, seen = self.tracking(pictures, look.found, look.log_error, look.seen, places, (grid[0], grid[1]))
        return replace(look, found=found, log_error=log_error, seen=seen, window=None)

    def _again(self, pairing: Pairing, start: Tensor, share: Tensor, memory: Tensor, count: int) -> list[Look]:
        if self.details is None:
            return self._looks(self.refinement, pairing, start, share, count, memory)
        looks = self._looks(self.refinement, pairing, start, share, count - 1, memory)
        start, memory = (looks[-1].found, looks[-1].memory) if looks else (start, memory)
        return looks + self._looks(self.details, pairing, start, share, 1, memory)

    def _looks(
        self, by: MatchRefinement, pairing: Pairing, start: Tensor, share: Tensor, count: int, memory: Tensor | None = None
    ) -> list[Look]:
        looks: list[Look] = by(pairing, start, share, places_of(*pairing.own.size, start.device), count, memory)
        return looks

    def _start(self, look: Look, missed: Tensor, other: Cells) -> Tensor:
        """Where a cell is expected; if that is far outside of the other picture, where it was found."""
        height, width = other.size
        found = look.found.detach()
        expected = found + missed
        outside = (expected[..., 0].abs() > width / 2 + BESIDE) | (expected[..., 1].abs() > height / 2 + BESIDE)
        return torch.where(outside[..., None] | ~expected.isfinite(), found, expected)


def _of_views(looks: list[list[Look]]) -> tuple[list[Look], list[Look]]:
    """Looks of each pairing as those of each view."""
    if len(looks) == 2:
        return looks[0], looks[1]
    one, two = zip(*(look.halves() for look in looks[0]), strict=True)
    return list(one), list(two)


def places_of(height: int, width: int, device: torch.device) -> Tensor:
    """Middles of all cells of a picture, [M, 2] (across, down) in pixels from the picture's middle."""
    counts = (height // MATCHED_CELL, width // MATCHED_CELL)
    axes = [MATCHED_CELL * (torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2) for n in counts]
    down, across = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([across, down], dim=-1).flatten(0, 1)


@torch.no_grad()
def first_found(pairing: Pairing) -> tuple[Tensor, Tensor]:
    """The mean place around the most alike cell, [B, M, 2], and the logarithm of that one's share of the softmax, [B, M, 1].

    Nothing is learned here: the likeness has a loss of its own.
    """
    rows, columns = pairing.other.coarse.shape[2:]
    places = places_of(*pairing.other.size, pairing.own.coarse.device)
    reach = torch.arange(-NEAR_BEST, NEAR_BEST + 1, device=places.device)
    found = []
    with torch.autocast(places.device.type, enabled=False):
        for likeness in pairing.coarse.parts(LARGEST):
            best, at = likeness.max(2)
            row, column = (at // columns)[..., None] + reach, (at % columns)[..., None] + reach
            inside = ((row >= 0) & (row < rows))[..., :, None] & ((column >= 0) & (column < columns))[..., None, :]
            near = (row.clamp(0, rows - 1)[..., :, None] * columns + column.clamp(0, columns - 1)[..., None, :]).flatten(2)
            share = likeness.gather(2, near).masked_fill(~inside.flatten(2), float("-inf")).softmax(2)
            found.append(((share[..., None] * places[near]).sum(2), -(likeness - best[..., None]).exp().sum(2, keepdim=True).log()))
    means, shares = zip(*found, strict=True)
    return torch.cat(means, dim=1), torch.cat(shares, dim=1)
