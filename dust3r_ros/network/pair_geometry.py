"""What a pair's matches say before the decoders look at it: poses, focal lengths and depths, and how the decoders are told.

A picture alone gives each cell a depth and the camera a focal length, as priors; the matches of both views do the rest (`two_view_bundle`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import Mlp
from dust3r_ros.network.bundle_starts import best_of, reversed_motion
from dust3r_ros.network.cell_matching import CellMatching, places_of
from dust3r_ros.network.config import NetworkConfig
from dust3r_ros.network.heads import Grid, exact, unpatched
from dust3r_ros.network.match_refinement import Look
from dust3r_ros.network.triple_consensus import agreed
from dust3r_ros.network.two_view_bundle import Steps, TwoCameras, adjusted
from dust3r_ros.network.two_view_reprojection import MatchedView, PairState

FIRST_STEPS, LAST_STEPS = Steps(8, is_last=False), Steps(6, learned=3, turning=0, first_doubt=4.0)
AGREED_STEPS, OTHER_STEPS = (Steps(count, turning=0, first_doubt=8.0, is_last=False) for count in (6, 8))
BETWEEN_STEPS = Steps(5, turning=0, first_doubt=6.0, is_last=False)
ANEW_STEPS = Steps(10, is_last=False)  # by the last matches, as if there had been no others
LOOKS_AGAIN = (2, 1)  # of each round, from where cells are expected; its last one at details, where there are any
QUERIES = 4  # ways in which a view's tokens are averaged for its camera
FIRST_FOCAL = 0.65  # in units of the longer side: 75 degrees across
FIRST_FOCAL_WEIGHT, FIRST_DEPTH_WEIGHT = math.log(1 / 0.4**2), math.log(0.5)  # logarithms of inverse variances
FIRST_SAME = math.log(1 / 0.05**2)  # likewise, of two focal lengths' being one camera's
SCALE_WEIGHT = 4.0  # of both views' depths being on one scale
LEAST_ERROR = 0.15  # pixels
LARGEST_LOG = 6.0
MEASURED_FOCAL_WEIGHT = 1 / 0.003**2
OCTAVES = 3
TOLD_OF_CELL, TOLD_OF_PAIR = 14 + 4 * OCTAVES, 14


@dataclass(frozen=True, eq=False)
class PairGeometry:
    """Of a batch of pairs."""

    looks_1: list[Look]  # from view 1's cells into view 2, the last one the best
    looks_2: list[Look]
    priors_1: MatchedView
    priors_2: MatchedView
    cameras: TwoCameras  # the mean log depth of all cells is 0

    def swapped(self) -> PairGeometry:
        """The same pairs with the views' names exchanged."""
        back = self.cameras.swapped()
        return PairGeometry(self.looks_2, self.looks_1, self.priors_2, self.priors_1, back)

    def mirrored(self) -> PairGeometry:
        """Every pair followed by itself with the views' names exchanged. Looks stay those of the pairs themselves."""
        back = self.swapped()

        def joined(one: object, two: object) -> dict[str, Tensor]:
            return {name: torch.stack([value, getattr(two, name)], dim=1).flatten(0, 1) for name, value in vars(one).items()}

        return PairGeometry(
            self.looks_1, self.looks_2,
            MatchedView(**joined(self.priors_1, back.priors_1)), MatchedView(**joined(self.priors_2, back.priors_2)),
            TwoCameras(**joined(self.cameras, back.cameras)),
        )  # fmt: skip

    def followed_by(self, other: PairGeometry) -> PairGeometry:
        """One batch of both. Looks are not joined: those of the first batch stay."""

        def joined(one: object, two: object) -> dict[str, Tensor]:
            return {name: torch.cat([value, getattr(two, name)]) for name, value in vars(one).items()}

        return PairGeometry(
            self.looks_1, self.looks_2,
            MatchedView(**joined(self.priors_1, other.priors_1)), MatchedView(**joined(self.priors_2, other.priors_2)),
            TwoCameras(**joined(self.cameras, other.cameras)),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ViewAlone:
    """What a view's picture and lens say, without the other view: the rest of a MatchedView, whose fields these are."""

    places: Tensor
    log_depth: Tensor
    depth_weight: Tensor
    log_focal: Tensor
    focal_weight: Tensor
    principal: Tensor
    is_measured: Tensor


class GeometryEstimation(nn.Module):
    """Matches, priors, the adjustment, and what is told of them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.matching = CellMatching(config)
        self.side = self.matching.side
        width = config.encoder_width
        self.depth = nn.Linear(width, 2 * self.side**2)
        self.attend = nn.Linear(width, QUERIES)
        self.camera = Mlp(QUERIES * width, width, 2)
        self.weight = nn.Parameter(torch.zeros(()))  # logarithm: errors of neighbours are alike, all together say less
        self.same = nn.Parameter(torch.tensor(FIRST_SAME))
        self.cells_told = Mlp(TOLD_OF_CELL * self.side**2, 2 * config.decoder_width, config.decoder_width)
        self.pair_told = Mlp(TOLD_OF_PAIR, config.decoder_width, config.decoder_width)

    def forward(
        self, encoded: tuple[Tensor, Tensor], cells: tuple[Tensor, Tensor], grids: tuple[Grid, Grid], lenses: tuple[Tensor, Tensor]
    ) -> PairGeometry:
        """Encoder tokens [B, N, C] of both views, what their cells are matched by, grids, and lenses.

        These as `ImageTokens` has them, but in the pixels that cells are matched in, as all of PairGeometry is.
        """
        one, two = (self.matching.unpacked(values, grid) for values, grid in zip(cells, grids, strict=True))
        alone = [self.alone(encoded[at], grids[at], lenses[at], (one.size, two.size)[at]) for at in (0, 1)]
        pairings = self.matching.pairings(one, two)
        looks_1, looks_2 = self.matching(pairings)
        before = None
        for count in LOOKS_AGAIN:
            with torch.no_grad():
                views = self._views(alone, (looks_1[-1], looks_2[-1]))
                before = self._begun(views, (one.grid, two.grid)) if before is None else self._adjusted(views, BETWEEN_STEPS, before)
            again = self.matching.again(pairings, (looks_1[-1], looks_2[-1]), (before.missed_1, before.missed_2), count)
            looks_1, looks_2 = looks_1 + again[0], looks_2 + again[1]
        tracked = self.matching.tracked(pairings, (looks_1[-1], looks_2[-1]))
        looks_1, looks_2 = looks_1 + tracked[0], looks_2 + tracked[1]
        views = self._views(alone, (looks_1[-1], looks_2[-1]))
        with torch.no_grad():
            start = self._gone_on(views, before)
        found = self._adjusted(views, LAST_STEPS, start)
        return PairGeometry(looks_1, looks_2, *views, found.with_depths(0.0))

    def alone(self, tokens: Tensor, grid: Grid, lens: Tensor, size: tuple[int, int]) -> ViewAlone:
        """Of one view's encoder tokens; its size (height, width) in the pixels that cells are matched in, as `lens` [B, 3] is."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self._alone(tokens.float(), grid, lens, size)

    def _alone(self, tokens: Tensor, grid: Grid, lens: Tensor, size: tuple[int, int]) -> ViewAlone:
        depth, sure = unpatched(exact(self.depth, tokens), grid, self.side).float().flatten(2).unbind(1)
        share = exact(self.attend, tokens).float().softmax(dim=1)
        pooled = torch.einsum("bnq,bnc->bqc", share, tokens).flatten(1)
        focal, focal_sure = self.camera(pooled.to(self.camera.fc1.weight.dtype)).float().unbind(1)
        measured, principal = lens[:, 0], lens[:, 1:]
        is_measured = measured > 0
        log_focal = math.log(FIRST_FOCAL * max(size)) + focal.clamp(-2.0, 2.0)
        focal_weight = (FIRST_FOCAL_WEIGHT + focal_sure).clamp(-LARGEST_LOG, LARGEST_LOG).exp()
        log_focal = torch.where(is_measured, measured.clamp_min(1.0).log(), log_focal)
        focal_weight = focal_weight.masked_fill(is_measured, MEASURED_FOCAL_WEIGHT)
        return ViewAlone(
            places_of(*size, tokens.device) - principal[:, None], depth.clamp(-LARGEST_LOG, LARGEST_LOG),
            (FIRST_DEPTH_WEIGHT + sure).clamp(-LARGEST_LOG, LARGEST_LOG).exp(), log_focal, focal_weight, principal, is_measured,
        )  # fmt: skip

    def _views(self, alone: Sequence[ViewAlone], looks: tuple[Look, Look]) -> tuple[MatchedView, MatchedView]:
        with torch.autocast(looks[0].found.device.type, enabled=False):
            one, two = alone
            return self._matched(one, looks[0], two), self._matched(two, looks[1], one)

    def _same(self) -> Tensor:
        """Inverse variance of the difference of one camera's log focal lengths."""
        return self.same.float().clamp(-LARGEST_LOG, 2 * LARGEST_LOG).exp()

    def _begun(self, views: tuple[MatchedView, MatchedView], grids: tuple[Grid, Grid]) -> TwoCameras:
        """By the first matches, from cameras in one place and from where most triples of them would have these; `grids`: of the cells."""
        with torch.autocast(views[0].found.device.type, enabled=False):
            there = self._adjusted(views, FIRST_STEPS)
            agreeing = self._adjusted(views, AGREED_STEPS, agreed(*views, grids))
            return best_of((there, agreeing), *views, self._same(), SCALE_WEIGHT)

    def _gone_on(self, views: tuple[MatchedView, MatchedView], before: TwoCameras | None) -> TwoCameras:
        """By the last matches: from where earlier ones led, from cameras in one place, and from the opposite motion."""
        on, anew = self._adjusted(views, BETWEEN_STEPS, before), self._adjusted(views, ANEW_STEPS)
        other = self._adjusted(views, OTHER_STEPS, reversed_motion(on, *views))
        return best_of((on, anew, other), *views, self._same(), SCALE_WEIGHT)

    def _adjusted(self, views: tuple[MatchedView, MatchedView], steps: Steps, start: TwoCameras | PairState | None = None) -> TwoCameras:
        with torch.autocast(views[0].found.device.type, enabled=False):
            state = start.state() if isinstance(start, TwoCameras) else start
            return adjusted(*views, self._same(), SCALE_WEIGHT, steps, state)

    def _matched(self, view: ViewAlone, look: Look, other: ViewAlone) -> MatchedView:
        variance = look.log_error.clamp(-LARGEST_LOG, LARGEST_LOG).mul(2).exp() + LEAST_ERROR**2
        weight = look.seen.sigmoid() / variance * self.weight.float().clamp(-LARGEST_LOG, LARGEST_LOG).exp()
        return MatchedView(found=look.found - other.principal[:, None], weight=weight, **vars(view))

    def told(self, geometry: PairGeometry, grids: tuple[Grid, Grid]) -> tuple[Tensor, Tensor]:
        """What both decoders' tokens are to know, [B, N1, C] and [B, N2, C]."""
        return self._told(geometry, grids[0], grids[1]), self._told(geometry.swapped(), grids[1], grids[0])

    def _told(self, geometry: PairGeometry, grid: Grid, other: Grid) -> Tensor:
        """Of view 1."""
        view, cameras = geometry.priors_1, geometry.cameras
        half, other_half = (max(n) * self.side * 2.0 for n in (grid, other))
        at = view.found / other_half
        turned = [at * (torch.pi * 2**octave) for octave in range(OCTAVES)]
        waves = [wave for turn in turned for wave in (turn.sin(), turn.cos())]
        slope = view.places / cameras.log_focal_1.exp()[:, None, None]
        change = cameras.log_depth_1 - view.log_depth
        change = change - change.mean(1, keepdim=True)
        alone = [cameras.log_depth_1, change, view.weight.clamp_min(1e-4).log(), (cameras.held_1 + 0.1).log(), view.depth_weight.log()]
        missed = (cameras.missed_1 * view.weight.sqrt()[..., None]).clamp(-4.0, 4.0)
        values = torch.cat(
            [at, at - view.places / half, missed, slope, torch.stack(alone, dim=-1), *waves, cameras.log_sigma_1[..., None]], dim=-1
        )
        of_cells = values.transpose(1, 2).unflatten(2, (grid[0] * self.side, grid[1] * self.side))
        of_patches = F.pixel_unshuffle(of_cells, self.side).flatten(2).transpose(1, 2)
        focals = torch.stack([cameras.log_focal_1 - math.log(half), cameras.log_focal_2 - math.log(other_half)], dim=-1)
        of_pair = torch.cat([cameras.rotation.flatten(1), cameras.translation.clamp(-4.0, 4.0), focals], dim=-1)
        cells = self.cells_told(of_patches.to(self.cells_told.fc1.weight.dtype))
        return (cells + self.pair_told(of_pair.to(self.pair_told.fc1.weight.dtype))[:, None]).float()
