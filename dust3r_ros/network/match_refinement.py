"""From about where a cell lies in the other view to where, how surely, and whether it is seen there at all.

Each look takes the likeness of the places around what was found so far, at half of the picture's size and at a quarter, or, of a picture
that is there at twice the size, at the size itself and a half; the mean under a softmax of the finer ones is the next place, and
convolutions over the cells mend it and say how sure it is (after RAFT, Teed and Deng, ECCV 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import is_for_loops
from dust3r_ros.network.config import GROUPS, MATCHED_CELL
from dust3r_ros.network.heads import Grid
from dust3r_ros.network.sampled_likeness import Likeness

FINE_CELL, DETAIL_CELL = 2, 1  # pixels
REACH = 3  # places on each side of what was found that are looked at
WINDOW = 2 * REACH + 1
WIDTH = 64  # of what is remembered of a cell from look to look
FIRST_SHARPNESS = 2.5  # logarithm of what the fine likeness is multiplied with before the softmax
SHARPEST = 4.5
QUIET = 0.3  # the convolutions are shown this much of the coarse likeness
LEAST_SPREAD = 1e-3  # square pixels
LEAST_SHARE = -10.0  # logarithm


@dataclass(frozen=True, eq=False)
class Cells:
    """What the cells of images are matched by."""

    coarse: Tensor  # [B, C, h, w] at a quarter of the size: their product is the likeness
    fine: Tensor  # [B, F, 2h, 2w] at half of it, of unit length
    detail: Tensor  # [B, D, 4h, 4w] at the size itself, likewise; D = 0: of pictures that are there in this size alone
    grey: Tensor  # [B, 1, H, W] the whole picture's values; no channel where no patches are tracked

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return MATCHED_CELL * self.coarse.shape[2], MATCHED_CELL * self.coarse.shape[3]

    @property
    def grid(self) -> Grid:
        """Rows and columns of the coarse cells."""
        return self.coarse.shape[2], self.coarse.shape[3]

    def followed_by(self, other: Cells) -> Cells:
        """One batch of both, which are of one size."""
        return Cells(*(torch.cat([own, getattr(other, name)]) for name, own in vars(self).items()))


@dataclass(frozen=True, eq=False)
class Pairing:
    """Cells of pictures and of those that they are looked for in, of one size each."""

    own: Cells
    other: Cells
    coarse: Likeness  # in float32; nothing is learned from it here
    fine: Likeness  # of what is seen of a cell's middle
    detail: Likeness | None  # likewise

    @classmethod
    def of(cls, own: Cells, other: Cells) -> Pairing:
        """As precise as the work around it."""
        device = own.fine.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own.fine.dtype
        middles = F.avg_pool2d(own.fine, MATCHED_CELL // FINE_CELL)
        fine = Likeness(_vectors(middles).to(dtype), _vectors(other.fine).to(dtype), few_by_loops=True)
        detail = None
        if own.detail.shape[1]:
            detail = Likeness(_vectors(_middles(own.detail)).to(dtype), _vectors(other.detail).to(dtype), sparse=True)
        with torch.autocast(device, enabled=False):
            return cls(own, other, Likeness(_vectors(own.coarse.detach()), _vectors(other.coarse.detach())), fine, detail)

    def near(self, centre: Tensor, cell: int) -> Tensor:
        """Likenesses to the places `cell` pixels apart around `centre`, as `windows` has them."""
        if cell == DETAIL_CELL:
            assert self.detail is not None
            return windows(self.detail, self.other.detail.shape[2:], centre, cell)
        likeness, places = (self.fine, self.other.fine) if cell == FINE_CELL else (self.coarse, self.other.coarse)
        return windows(likeness, places.shape[2:], centre, cell)


@dataclass(frozen=True, eq=False)
class Look:
    """What was found of a view's M cells."""

    found: Tensor  # [B, M, 2] (across, down) in the other view, pixels from its middle
    log_error: Tensor  # [B, M] of the distance to expect
    seen: Tensor  # [B, M] logit of being seen there
    window: Tensor | None  # [B, M, WINDOW^2], row by row: what the softmax of the places around `centre` is taken of, if one was
    centre: Tensor  # [B, M, 2]
    share: Tensor  # [B, M, 1] logarithm, of the most alike cell in the likeness of all
    memory: Tensor  # [B, WIDTH, h, w] what is remembered of the cells
    cell: int = FINE_CELL  # pixels between the window's places

    def halves(self) -> tuple[Look, Look]:
        """Of the first half of the batch, and of the second."""
        values = {name: value.chunk(2) for name, value in self._tensors().items()}
        one, two = (Look(**{**vars(self), **{name: halves[at] for name, halves in values.items()}}) for at in (0, 1))
        return one, two

    def followed_by(self, other: Look) -> Look:
        """One batch of both."""
        return Look(**{**vars(self), **{name: torch.cat([value, getattr(other, name)]) for name, value in self._tensors().items()}})

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


class MatchRefinement(nn.Module):
    """Looks around what was found, at places `cell` pixels apart; and, to see farther, at the next coarser ones."""

    def __init__(self, coarse: int, cell: int) -> None:
        super().__init__()
        self.cell, self.coarser = cell, FINE_CELL if cell == DETAIL_CELL else MATCHED_CELL
        self.quiet = QUIET if self.coarser == MATCHED_CELL else 1.0
        self.sharpness = nn.Parameter(torch.tensor(FIRST_SHARPNESS))
        self.from_likeness = nn.Conv2d(2 * WINDOW**2, WIDTH, 1)
        self.from_place = nn.Conv2d(8, WIDTH, 1)
        self.first_memory = nn.Conv2d(coarse, WIDTH, 1)
        self.conv1 = nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.norm = nn.GroupNorm(GROUPS, WIDTH)
        self.out = nn.Conv2d(WIDTH, 4, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(
        self, pairing: Pairing, found: Tensor, share: Tensor, places: Tensor, count: int, remembered: Tensor | None = None
    ) -> list[Look]:
        """`count` looks, each from where the one before has left off, the first from `found` [B, M, 2].

        share: logarithm of the likeness softmax at the most alike cell, [B, M, 1]; places [M, 2]: middles of the own cells; remembered:
        by the looks before, if there were any.
        """
        own, other = pairing.own, pairing.other
        dtype = self.conv1.weight.dtype
        scale = max(other.size) / 2
        grid = own.coarse.shape[2:]
        sure = share.clamp_min(LEAST_SHARE) / 3
        offsets = self._offsets(found.device)
        memory = self.first_memory(own.coarse.to(dtype)).float()
        if remembered is not None:
            memory = memory + remembered
        looks: list[Look] = []
        for _ in range(count):
            centre = found.detach()
            alike, about = pairing.near(centre, self.cell), self.quiet * pairing.near(centre, self.coarser)
            window = alike * self.sharpness.float().clamp(max=SHARPEST).exp()
            step, spread = mean_and_spread(window.softmax(-1), offsets)
            found = centre + step
            where = torch.cat([(found - places) / scale, found / scale, sure.expand_as(spread), step, spread], dim=-1)
            news = self.from_likeness(_map(torch.cat([alike, about], -1), grid).to(dtype)) + self.from_place(_map(where, grid).to(dtype))
            both = torch.cat([F.gelu(news), self.norm(memory).to(dtype)], dim=1)
            memory = memory + self.conv2(F.gelu(self.conv1(both))).float()
            said = self.out(self.norm(memory).to(dtype)).float().flatten(2).transpose(1, 2)
            found = found + self.cell * said[..., :2]
            looks.append(Look(found, said[..., 2] + spread[..., 0].log(), said[..., 3], window, centre, share, memory, self.cell))
        return looks

    def _offsets(self, device: torch.device) -> Tensor:
        """[WINDOW^2, 2] (across, down), pixels"""
        axis = self.cell * torch.arange(-REACH, REACH + 1, dtype=torch.float32, device=device)
        down, across = torch.meshgrid(axis, axis, indexing="ij")
        return torch.stack([across, down], dim=-1).flatten(0, 1)


def mean_and_spread(chance: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """[B, M, 2] and [B, M, 1] of the offsets [K, 2] by their chances [B, M, K]; a difference of squares, which rounding would spoil."""
    with torch.autocast(chance.device.type, enabled=False):
        mean = chance.float() @ offsets
        variance = chance.float() @ offsets.square() - mean.square()
    return mean, variance.sum(-1, keepdim=True).clamp_min(LEAST_SPREAD).sqrt()


def _map(values: Tensor, grid: torch.Size) -> Tensor:
    """[B, M, C] to [B, C, h, w]"""
    return values.transpose(1, 2).unflatten(2, grid)


def _middles(values: Tensor) -> Tensor:
    """[B, C, 4h, 4w] to [B, C, h, w], the mean of the four in the middle of each cell."""
    rows, columns = (values.shape[at] // MATCHED_CELL for at in (2, 3))
    cells = values.unflatten(3, (columns, MATCHED_CELL)).unflatten(2, (rows, MATCHED_CELL))
    middle = slice(MATCHED_CELL // 2 - 1, MATCHED_CELL // 2 + 1)
    return cells[:, :, :, middle, :, middle].mean((3, 5))


def _vectors(values: Tensor) -> Tensor:
    """[B, C, h, w] to [B, M, C]"""
    return values.flatten(2).transpose(1, 2)


def windows(likeness: Likeness, shape: torch.Size, centre: Tensor, cell: int) -> Tensor:
    """Likeness of own cells to the WINDOW x WINDOW places, `cell` pixels apart, around `centre` in a picture of `shape` (h2, w2) places.

    centre [B, M, 2] in pixels from the picture's middle; between places the likeness is interpolated, outside of the picture it is 0.
    [B, M, WINDOW^2], row by row.
    """
    height, width = shape
    if likeness.is_unlearned and is_for_loops(likeness.own):
        return _compiled_windows(likeness, height, width, centre, cell)
    reach = torch.arange(WINDOW + 1, device=centre.device)
    column, across = _start(centre[..., 0] / cell + (width - 1) / 2, reach)
    row, down = _start(centre[..., 1] / cell + (height - 1) / 2, reach)
    inside = ((row >= 0) & (row < height))[..., :, None] & ((column >= 0) & (column < width))[..., None, :]
    index = row.clamp(0, height - 1)[..., :, None] * width + column.clamp(0, width - 1)[..., None, :]
    alike = likeness.at(index.flatten(2)).unflatten(2, (WINDOW + 1, WINDOW + 1)) * inside
    across, down = across[..., None, None], down[..., None, None]
    rows = alike[..., :-1, :] * (1 - down) + alike[..., 1:, :] * down
    return (rows[..., :-1] * (1 - across) + rows[..., 1:] * across).flatten(2)


@torch.no_grad()
def _compiled_windows(likeness: Likeness, height: int, width: int, centre: Tensor, cell: int) -> Tensor:
    from dust3r_ros.network import compiled_windows

    found = torch.empty(*centre.shape[:2], WINDOW**2)
    where = (centre.contiguous().numpy(), height, width, cell, REACH, found.numpy())
    if likeness.is_whole:
        compiled_windows.of_all(likeness.whole.numpy(), *where)
    else:
        compiled_windows.of_few(likeness.own.contiguous().numpy(), likeness.others.numpy(), *where)
    return found


def _start(at: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Places [B, M] to the indices [B, M, WINDOW + 1] of a window around each, and how far it lies beyond the first ones [B, M]."""
    first = at - REACH
    corner = first.floor()
    return corner.long()[..., None] + reach, first - corner
