"""What matched cells, and the cameras made of them, are taught: where a cell is truly seen, and what the true cameras are.

The distance to a match has a Laplace distribution whose width is learned with it; where a window of places holds the truth, their softmax
has a cross entropy, as the coarse likeness has (`token_matching`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.cell_matching import places_of
from dust3r_ros.network.config import MATCHED_CELL
from dust3r_ros.network.match_refinement import REACH, WINDOW, Look
from dust3r_ros.network.pair_geometry import PairGeometry, ViewAlone
from dust3r_ros.training.losses import PointmapTruth, pose_loss
from dust3r_ros.training.pairs import View

SMOOTH = 1.1  # of the depths around a cell's middle: largest to least; beyond, an edge runs through it
SAME_SURFACE = 0.05  # relative depth within which two views see one point
NEAREST = 0.02  # metres
FAR = 12.0  # pixels: matches farther off are lost, not inexact
EARLIER = 0.8  # weight of a look beside that of the next
WIDEST_LOG = 4.0  # of an error's logarithm
CAMERAS, DEPTHS, ALONE = 2.0, 0.5, 0.5  # weights of the adjusted cameras, of the cells' depths, and of the priors, beside the looks'


@dataclass(frozen=True, eq=False)
class TrueCells:
    """What is true of view 1's M cells. Pixels are those that cells are matched in, `shrink` of the picture's."""

    found: Tensor  # [B, M, 2] in view 2, pixels from its middle
    log_depth: Tensor  # [B, M]
    is_known: Tensor  # [B, M] one surface with a depth
    is_seen: Tensor  # [B, M] by view 2
    is_torn: Tensor  # [B, M] by an edge: neither seen nor unseen


def true_cells(truth: PointmapTruth, shrink: int = 1) -> TrueCells:
    """Of view 1 of each pair, of a network that halves pictures (`shrink` 2) or not."""
    height, width = truth.points_1.shape[1:3]
    depth = torch.where(truth.valid_1, truth.points_1[..., 2], 0.0)
    mean, known, is_there = cell_depths(depth, shrink * MATCHED_CELL)
    places = places_of(height // shrink, width // shrink, depth.device) * shrink
    first, second = _from_middle(truth.intrinsics_1, (height, width)), _from_middle(truth.intrinsics_2, truth.points_2.shape[1:3])
    slope = (places - first[1][:, None]) / first[0][:, None]
    points = torch.cat([slope, torch.ones_like(slope[..., :1])], dim=-1) * mean[..., None]
    rotation, translation = truth.pose[:, :3, :3], truth.pose[:, :3, 3]
    moved = (points - translation[:, None]) @ rotation
    found = second[0][:, None] * moved[..., :2] / moved[..., 2:].clamp_min(NEAREST) + second[1][:, None]
    own = ((truth.points_2 - translation[:, None, None]) @ rotation[:, None])[..., 2]
    there, is_inside = _at(torch.where(truth.valid_2, own, 0.0), found)
    z = moved[..., 2]
    seen = known & is_inside & (z > NEAREST) & ((there - z).abs() < SAME_SURFACE * z)
    return TrueCells(found / shrink, mean.clamp_min(NEAREST).log(), known, seen, ~known & is_there)


def cell_depths(depth: Tensor, cell: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of depth maps [B, H, W], 0 where unknown: the depth [B, M] in the middle of each cell, whether it is known and one surface's, and
    whether there is any."""
    inner = depth.unfold(1, cell, cell).unfold(2, cell, cell)
    middle = slice(cell // 2 - 1, cell // 2 + 1)
    inner = inner[..., middle, middle].flatten(3).flatten(1, 2)
    least, most = inner.amin(-1), inner.amax(-1)
    return 1 / (1 / inner.clamp_min(NEAREST)).mean(-1), (least > NEAREST) & (most < SMOOTH * least), most > 0


def alone_losses(view: ViewAlone, truth: View) -> tuple[Tensor, Tensor]:
    """Mean distances of log depths from the true ones after each picture's median one, and of log focal lengths."""
    mean, known, _ = cell_depths(torch.where(truth.valid, truth.depth, 0.0), MATCHED_CELL)
    focal = (truth.intrinsics[:, 0] * truth.intrinsics[:, 1]).log() / 2
    return _depth_error(view.log_depth, mean.clamp_min(NEAREST).log(), known), (view.log_focal - focal).abs().mean()


def _from_middle(intrinsics: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Focal lengths, and where the principal point lies from the picture's middle, [B, 2] each."""
    middle_x, middle_y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    return intrinsics[:, :2], torch.stack([intrinsics[:, 2] - middle_x, intrinsics[:, 3] - middle_y], dim=-1)


def _at(values: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """values [B, H, W] at the pixels nearest to places [B, M, 2], and whether these lie in the picture."""
    height, width = values.shape[1:]
    column, row = (places[..., 0] + (width - 1) / 2).round().long(), (places[..., 1] + (height - 1) / 2).round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return values.flatten(1).gather(1, index), inside


def likeness_loss(likeness: Tensor, cells: tuple[TrueCells, TrueCells], sizes: tuple[tuple[int, int], tuple[int, int]]) -> Tensor:
    """Mean cross entropy, both ways, of finding where the other view sees a cell; sizes: height and width of each picture.

    likeness [B, M1, M2]: what the softmax over the other view's cells is taken of.
    """
    total, count = likeness.new_zeros(()), likeness.new_zeros(())
    for alike, truth, size in zip((likeness, likeness.transpose(1, 2)), cells, sizes[::-1], strict=True):
        rows, columns = size[0] // MATCHED_CELL, size[1] // MATCHED_CELL
        middle = torch.stack([torch.full_like(truth.log_depth, (n - 1) / 2) for n in (columns, rows)], dim=-1)
        lost, found = _unlikeliness(alike, truth.found / MATCHED_CELL + middle, rows, columns, truth.is_seen)
        total, count = total + lost, count + found
    return total / count.clamp_min(1)


def geometry_loss(
    geometry: PairGeometry, truths: tuple[PointmapTruth, PointmapTruth], cells: tuple[TrueCells, TrueCells], shrink: int = 1
) -> Tensor:
    """Of pairs in one order. truths: of both orders; cells: what is true of those of both views, with the same `shrink`."""
    (truth_1, truth_2), (cells_1, cells_2) = truths, cells
    looks = looks_loss(geometry.looks_1, cells_1) + looks_loss(geometry.looks_2, cells_2)
    cameras = geometry.cameras
    focals = [(truth.intrinsics_1[:, 0] / shrink).log() for truth in (truth_1, truth_2)]
    posed = pose_loss(cameras.rotation, cameras.translation, truth_1)
    focal = sum((said - true).abs().mean() for said, true in zip((cameras.log_focal_1, cameras.log_focal_2), focals, strict=True))
    alone = sum((view.log_focal - true).abs().mean() for view, true in zip((geometry.priors_1, geometry.priors_2), focals, strict=True))
    adjusted, first = (cameras.log_depth_1, cameras.log_depth_2), (geometry.priors_1.log_depth, geometry.priors_2.log_depth)
    depths, priors = (
        sum(_depth_error(said, truth.log_depth, truth.is_known) for said, truth in zip(both, cells, strict=True))
        for both in (adjusted, first)
    )
    return looks / 2 + CAMERAS * (posed + focal / 2) + DEPTHS * depths / 2 + ALONE * (alone + priors) / 2


def looks_loss(looks: list[Look], truth: TrueCells) -> Tensor:
    """Mean over looks of how unlikely the true places are, and of the cross entropies."""
    total, weight = truth.found.new_zeros(()), 0.0
    for at, look in enumerate(looks):
        share = EARLIER ** (len(looks) - 1 - at)
        total, weight = total + share * _look_loss(look, truth), weight + share
    return total / weight


def _look_loss(look: Look, truth: TrueCells) -> Tensor:
    distance = (look.found - truth.found).abs().sum(-1)
    is_near = truth.is_seen & (distance.detach() < FAR)
    width = look.log_error.clamp(-WIDEST_LOG, WIDEST_LOG)
    unlikely = torch.where(is_near, distance * (-width).exp() + width, 0.0).sum() / truth.is_seen.sum().clamp_min(1)
    unsure = F.binary_cross_entropy_with_logits(look.seen, is_near.float(), reduction="none")
    unsure = (unsure * ~truth.is_torn).sum() / (~truth.is_torn).sum().clamp_min(1)
    return unlikely + unsure + (0.0 if look.window is None else _window_loss(look.window, look, truth))


def _window_loss(window: Tensor, look: Look, truth: TrueCells) -> Tensor:
    """Cross entropy of the window's softmax, where the window holds the true place."""
    at = (truth.found - look.centre) / look.cell + REACH
    total, count = _unlikeliness(window, at, WINDOW, WINDOW, truth.is_seen)
    return total / count.clamp_min(1)


def _unlikeliness(alike: Tensor, at: Tensor, rows: int, columns: int, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of cross entropies of softmaxes over grids of places, alike [B, M, rows * columns], and how many there are.

    The four places around `at` [B, M, 2] (column, row) are right, as linear interpolation shares it; `counts` [B, M]: which cells do.
    """
    corner = at.floor()
    column, row = corner.unbind(-1)
    inside = counts & (column >= 0) & (column < columns - 1) & (row >= 0) & (row < rows - 1)
    share_x, share_y = (at - corner).unbind(-1)
    index = torch.where(inside, row * columns + column, 0.0).long()
    whole = alike.logsumexp(-1)
    right = torch.zeros_like(whole)
    for down, of_row in ((0, 1 - share_y), (1, share_y)):
        for across, of_column in ((0, 1 - share_x), (1, share_x)):
            right = right + of_row * of_column * alike.gather(2, (index + down * columns + across)[..., None])[..., 0]
    return torch.where(inside, whole - right, 0.0).sum(), inside.sum()


def _depth_error(log_depth: Tensor, true: Tensor, is_known: Tensor) -> Tensor:
    """Mean distance of log depths from the true ones, after the median one of each view."""
    off = torch.where(is_known, log_depth - true, torch.nan)
    middle = off.detach().nanmedian(1, keepdim=True).values
    error = torch.where(is_known & middle.isfinite(), log_depth - true - middle, 0.0)
    return error.abs().sum() / is_known.sum().clamp_min(1)
