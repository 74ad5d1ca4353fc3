"""Matches brought to where the pictures' own values agree: patches tracked as Lucas and Kanade do, IJCAI 1981.

What convolutions find of a match is a quarter of a pixel off, and alike on a whole surface: they see it slanted otherwise in either view.
Here the patch around a cell's middle is drawn as its neighbours' matches say that the surface is turned, and moved until it fits (inverse
compositional: Baker and Matthews, IJCV 2004), but for gain and offset. How far the result is to be trusted is learned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import Mlp, is_for_loops
from dust3r_ros.network.config import MATCHED_CELL

SIDE = 12  # of a patch, in pixels of the whole picture: even, as a cell's middle lies between pixels
SPREAD = 3.6  # standard deviation of the pixels' weights
STEPS = 3
LARGEST_STEP = 0.7  # pixels of the whole picture
FARTHEST = 1.5  # pixels that cells are matched in: who went farther has lost it
LEAST_SLOPE = 1e-5  # squared, of a patch's values
GAINS = (0.2, 5.0)
AROUND = 2  # cells on each side that say how the surface is turned
STEEPEST = 0.9  # change of a match from cell to cell beside the cells' own distance: beyond, it is another surface
FLATTENING = 1e-3  # weight of its not being turned
LEAST_VARIANCE = 0.15**2  # square pixels of a neighbour's match
LEAST_SEEN = 0.007  # who is less likely to be seen is not looked for: a fifth of all cells, with a three-thousandth of the weight
EVIDENCE = 5
HIDDEN = 16


class PatchTracking(nn.Module):
    """Tracks, and learns from what came of it how far to follow, and how large an error to expect."""

    def __init__(self) -> None:
        super().__init__()
        self.judge = Mlp(EVIDENCE + 2, HIDDEN, 3)
        self.start_even()

    @torch.no_grad()
    def start_even(self) -> None:
        """Half of the way is followed at first, whatever the evidence."""
        nn.init.zeros_(self.judge.fc2.weight)
        nn.init.zeros_(self.judge.fc2.bias)

    def forward(
        self, pictures: tuple[Tensor, Tensor], found: Tensor, log_error: Tensor, seen: Tensor, places: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Grey pictures [B, H, W], own and other, and what was found of the own cells (`match_refinement.Look`): the same, better."""
        with torch.no_grad():
            chance = seen.float().sigmoid()
            weight = chance.where(chance > LEAST_SEEN, 0.0) / (log_error.float().mul(2).exp() + LEAST_VARIANCE)
            tracked, evidence = tracked_patches(*pictures, places, found.float(), weight, grid)
            told = torch.cat([evidence, log_error[..., None], seen[..., None]], dim=-1).clamp(-8.0, 8.0)
        follow, wider, surer = self.judge(told.to(self.judge.fc1.weight.dtype)).float().unbind(-1)
        return found + follow.sigmoid()[..., None] * (tracked - found.detach()), log_error + wider, seen + surer


@torch.no_grad()
def tracked_patches(
    own: Tensor, other: Tensor, places: Tensor, found: Tensor, weight: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Where patches of `own` [B, H, W] around `places` [M, 2] lie in `other` [B, H2, W2], from `found` [B, M, 2], and the evidence.

    Places are pixels that cells are matched in, from the pictures' middles; weight [B, M]: of what was found, for the surface's slant; who
    has none is not looked for, and lost.
    Evidence [B, M, EVIDENCE]: correlation; logarithms of the residual over the least slope, which is about how far off the place may be,
    and of that slope; how far it went, and the last step, in the same pixels. What is lost stays where it was, with a correlation of 0.
    """
    scale = own.shape[1] / (MATCHED_CELL * grid[0])
    is_there = found.isfinite().all(-1, keepdim=True)
    safe, weight = found.where(is_there, 0.0), weight.nan_to_num()
    is_sought = weight > 0
    slant = slants(places, safe, weight, grid).nan_to_num()
    start, middles = scale * safe, scale * places
    if is_for_loops(own):
        end, evidence = _compiled(own, other, middles, start, slant, is_sought)
    else:
        with torch.autocast(own.device.type, enabled=False):  # places in float32
            end, evidence = _tracked(own.float(), other.float(), middles, start, slant)
    correlation, residual, slope, last = evidence.unbind(-1)
    moved = (end - start).norm(dim=-1) / scale
    is_lost = ~(moved < FARTHEST) | ~evidence.isfinite().all(-1) | ~is_there[..., 0] | ~is_sought
    logs = 0.5 * (residual / slope).clamp_min(1e-8).log(), 0.5 * slope.log()
    told = torch.stack([correlation, *logs, moved, last / scale], dim=-1)
    return torch.where(is_lost[..., None], found, end / scale), torch.where(is_lost[..., None], 0.0, told)


def slants(places: Tensor, found: Tensor, weight: Tensor, grid: tuple[int, int]) -> Tensor:
    """How what is found changes with the own place, [B, M, 2, 2], by weighted least squares over the cells around."""
    side = 2 * AROUND + 1

    def around(values: Tensor) -> Tensor:
        """[B, M, C] to [B, C, side^2, M], 0 outside."""
        maps = values.transpose(1, 2).unflatten(2, grid)
        return F.unfold(maps, side, padding=AROUND).unflatten(1, (values.shape[2], side**2))

    own = places.expand(len(found), -1, -1)
    step, moved = (around(values) - values.transpose(1, 2)[:, :, None] for values in (own, found))
    is_near = (moved - step).square().sum(1) < (STEEPEST * AROUND * MATCHED_CELL) ** 2
    weighed = around(weight[..., None])[:, 0] * is_near
    flat = FLATTENING * MATCHED_CELL**2 * (weighed.mean((1, 2), keepdim=True) + 1e-6)
    xx, xy, yy = (_sum(weighed, step[:, a], step[:, b]) for a, b in ((0, 0), (0, 1), (1, 1)))
    xx, yy = xx + flat[:, 0], yy + flat[:, 0]
    rows = []
    for axis in (0, 1):
        x, y = _sum(weighed, moved[:, axis], step[:, 0]), _sum(weighed, moved[:, axis], step[:, 1])
        x, y = (x + flat[:, 0], y) if axis == 0 else (x, y + flat[:, 0])
        rows.append(torch.stack([x * yy - y * xy, y * xx - x * xy], dim=-1))
    return torch.stack(rows, dim=-2) / (xx * yy - xy * xy)[..., None, None]


def _sum(weight: Tensor, one: Tensor, two: Tensor) -> Tensor:
    return (weight * one * two).sum(1)


def _tracked(own: Tensor, other: Tensor, middles: Tensor, start: Tensor, slant: Tensor) -> tuple[Tensor, Tensor]:
    """In pixels of the whole pictures. Evidence: correlation, residual, least slope, last step. Has not run on a GPU yet."""
    axis = torch.arange(SIDE, dtype=torch.float32, device=own.device) - (SIDE - 1) / 2
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    offsets = torch.stack([across, down], dim=-1).flatten(0, 1)
    weight = (-offsets.square().sum(-1) / (2 * SPREAD**2)).exp()
    weight = weight / weight.sum()

    def mean(values: Tensor) -> Tensor:
        return (values * weight).sum(-1, keepdim=True)

    wide = F.pad(own[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    slopes = (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2, (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2
    at = (middles[:, None] + offsets).expand(len(own), -1, -1, -1)
    patch, slope_x, slope_y = _sampled(torch.stack([own, *slopes], dim=1), at).unbind(1)
    patch, slope_x, slope_y = (values - mean(values) for values in (patch, slope_x, slope_y))
    xx, xy, yy = mean(slope_x**2)[..., 0] + LEAST_SLOPE, mean(slope_x * slope_y)[..., 0], mean(slope_y**2)[..., 0] + LEAST_SLOPE
    determinant = xx * yy - xy * xy
    drawn = (offsets @ slant.transpose(-1, -2)).contiguous()
    end = start
    for _ in range(STEPS):
        seen = _sampled(other[:, None], end[:, :, None] + drawn)[:, 0]
        seen = seen - mean(seen)
        power = mean(seen**2)
        gain = (mean(seen * patch) / (power + 1e-6)).clamp(*GAINS)
        residual = gain * seen - patch
        by_x, by_y = mean(slope_x * residual)[..., 0], mean(slope_y * residual)[..., 0]
        step = torch.stack([yy * by_x - xy * by_y, xx * by_y - xy * by_x], dim=-1) / determinant[..., None]
        step = step / (step.norm(dim=-1, keepdim=True) / LARGEST_STEP).clamp_min(1.0)
        end = end - (slant @ step[..., None])[..., 0]
    correlation = mean(seen * patch) / ((power * mean(patch**2)).sqrt() + 1e-6)
    half = (xx + yy) / 2
    least = (half - (half**2 - determinant).clamp_min(0).sqrt()).clamp_min(LEAST_SLOPE)
    return end, torch.stack([correlation[..., 0], mean(residual**2)[..., 0], least, step.norm(dim=-1)], dim=-1)


def _sampled(pictures: Tensor, at: Tensor) -> Tensor:
    """[B, C, H, W] between pixels at [B, M, K, 2] from the middle; beyond the edge, what is at it. [B, C, M, K]"""
    height, width = pictures.shape[2:]
    grid = torch.stack([at[..., 0] / (width / 2), at[..., 1] / (height / 2)], dim=-1)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _compiled(own: Tensor, other: Tensor, middles: Tensor, start: Tensor, slant: Tensor, is_sought: Tensor) -> tuple[Tensor, Tensor]:
    from dust3r_ros.network import compiled_tracking

    end, evidence = start.clone(memory_format=torch.contiguous_format), start.new_empty(*start.shape[:2], EVIDENCE - 1)
    given = (own, other, middles, slant, is_sought)
    settings = (SIDE, SPREAD, STEPS, LARGEST_STEP, LEAST_SLOPE, *GAINS)
    compiled_tracking.track(*(value.contiguous().numpy() for value in given), settings, end.numpy(), evidence.numpy())
    return end, evidence
