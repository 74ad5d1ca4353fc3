"""A start for the adjustment of a pair's cameras where most of its matches are wrong: the motion that most of them agree with.

Each step of the adjustment only goes down, and with a large turn, or much that the other view does not see, it ends where no match is
right. A picture alone gives its cells depths, so three matches are three points in both cameras and give a motion; of many such triples
the one is taken that most matches agree with (Fischler and Bolles, CACM 1981). Depths by one picture are wrong by a fifth: what counts
is how far a match lies beside the line on which another depth would have it, and much less where on it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.config import MATCHED_CELL
from dust3r_ros.network.heads import Grid
from dust3r_ros.network.two_view_reprojection import NEAREST, MatchedView, PairState

TRIPLES, JUDGES = 128, 128  # of a pair: motions that are tried, and matches that are asked about each
RIGHT = 3.0  # pixels, one sigma: a match that is less sure than this is hardly asked
BESIDE, ALONG = 2.0, 15.0  # pixels beside a match's line, and in any direction, at which it agrees by half
LARGEST_SCALE = 2.0  # between the depths of both views
SHORTEST = 1e-6
STRIDES = (0.8191725134, 0.6710436067, 0.5497004779)  # of an even sequence in three dimensions: powers of 1 / 1.2207440846 (Roberts, 2018)


@torch.no_grad()
def agreed(one: MatchedView, two: MatchedView, grids: tuple[Grid, Grid]) -> PairState:
    """The motion, with all else as the priors have it. `grids`: rows and columns of the cells of both views."""
    points = _both_sides(one, two, grids)
    sure = torch.cat([one.weight, two.weight], dim=1) * RIGHT**2
    chance = (sure / (1 + sure)).cumsum(1)
    triples, judges = _drawn(chance, TRIPLES, 3), _drawn(chance, JUDGES, 1)
    turns, moves, scales = _motions(*(_taken(side, triples).unflatten(1, (TRIPLES, 3)) for side in points))
    in_1, in_2 = (_taken(side, judges) for side in points)
    back = turns.transpose(2, 3)
    agreeing = _agreeing(in_1, in_2, two.log_focal.exp(), back, -(back @ moves[..., None])[..., 0])
    agreeing = agreeing + _agreeing(in_2, in_1, one.log_focal.exp(), turns, moves / scales[..., None])
    best = agreeing.argmax(1)
    pair = torch.arange(len(best), device=best.device)
    log_scale = scales[pair, best].log()
    motion, focals = (turns[pair, best], moves[pair, best]), (one.log_focal, two.log_focal)
    return PairState(*motion, *focals, torch.zeros_like(log_scale), one.log_depth, two.log_depth + log_scale[:, None])


def _both_sides(one: MatchedView, two: MatchedView, grids: tuple[Grid, Grid]) -> tuple[Tensor, Tensor]:
    """[B, M1 + M2, 3] of what each cell of both views shows, in camera 1 and in camera 2, by the depth that each picture alone gives it."""
    own_1, own_2 = _points(one, one.places, one.log_depth), _points(two, two.places, two.log_depth)
    found_2 = _points(two, one.found, _nearest(two, one.found, grids[1]))
    found_1 = _points(one, two.found, _nearest(one, two.found, grids[0]))
    return torch.cat([own_1, found_1], dim=1), torch.cat([found_2, own_2], dim=1)


def _points(view: MatchedView, places: Tensor, log_depth: Tensor) -> Tensor:
    slopes = places / view.log_focal.exp()[:, None, None]
    return log_depth.exp()[..., None] * F.pad(slopes, (0, 1), value=1.0)


def _nearest(view: MatchedView, places: Tensor, grid: Grid) -> Tensor:
    """The view's log depth of the cell at places [B, M, 2], pixels from the principal point."""
    at = (places + view.principal[:, None]) / MATCHED_CELL
    row, column = ((at[..., axis] + (count - 1) / 2).round().long().clamp(0, count - 1) for axis, count in ((1, grid[0]), (0, grid[1])))
    return view.log_depth.gather(1, row * grid[1] + column)


def _drawn(chance: Tensor, count: int, times: int) -> Tensor:
    """[B, count * times] of the matches, by their cumulative chances [B, M]: always the same ones."""
    index = torch.arange(1, count + 1, dtype=torch.float32, device=chance.device)
    even = torch.stack([index * stride % 1.0 for stride in STRIDES[:times]], dim=-1)
    return torch.searchsorted(chance, even.flatten() * chance[:, -1:]).clamp_max(chance.shape[1] - 1)


def _taken(points: Tensor, index: Tensor) -> Tensor:
    return points.gather(1, index[..., None].expand(-1, -1, 3))


def _motions(in_1: Tensor, in_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of triples [B, T, 3, 3] of points in both cameras: x_1 = turn scale x_2 + move; [B, T, 3, 3], [B, T, 3] and scale [B, T]."""
    (frame_1, size_1), (frame_2, size_2) = _frames(in_1), _frames(in_2)
    has_axes = torch.stack([frame_1, frame_2]).any(-2).all(-1).all(0)  # else its points lie on one line, or one match was drawn twice
    turn = torch.where(has_axes[..., None, None], frame_1 @ frame_2.transpose(2, 3), torch.eye(3, device=in_1.device))
    scale = (size_1 / size_2).clamp(1 / LARGEST_SCALE, LARGEST_SCALE)
    return turn, in_1.mean(2) - scale[..., None] * (turn @ in_2.mean(2)[..., None])[..., 0], scale


def _frames(triples: Tensor) -> tuple[Tensor, Tensor]:
    """Axes along the middle of two sides, in the triangle, and out of it, [B, T, 3, 3]; and the triangle's size, [B, T]."""
    first, second = triples[:, :, 1] - triples[:, :, 0], triples[:, :, 2] - triples[:, :, 0]
    out = F.normalize(torch.linalg.cross(first, second), dim=-1)
    middle = F.normalize(F.normalize(first, dim=-1) + F.normalize(second, dim=-1), dim=-1)
    size = sum(side.norm(dim=-1) for side in (first, second, second - first))
    return torch.stack([middle, torch.linalg.cross(out, middle), out], dim=-1), torch.as_tensor(size).clamp_min(SHORTEST)


def _agreeing(points: Tensor, others: Tensor, focal: Tensor, turns: Tensor, moves: Tensor) -> Tensor:
    """[B, T] how many of points [B, J, 3] lie where the other camera has them, [B, J, 3], under motions there [B, T, 3, 3], [B, T, 3]."""
    turned = (turns.flatten(1, 2) @ points.transpose(1, 2)).unflatten(1, (-1, 3))  # [B, T, 3, J]
    x, y, z = (turned + moves[..., None]).unbind(2)
    inverse = 1 / z.clamp_min(NEAREST)
    seen_x, seen_y = x * inverse, y * inverse
    focal = focal[:, None, None]
    off_x, off_y = focal * (seen_x - _slope(others, 0)), focal * (seen_y - _slope(others, 1))
    # The line on which the point is seen at other depths
    line_x, line_y = turned[:, :, 0] - turned[:, :, 2] * seen_x, turned[:, :, 1] - turned[:, :, 2] * seen_y
    beside = (off_x * line_y - off_y * line_x).square() / (line_x.square() + line_y.square()).clamp_min(SHORTEST**2)
    agree = 1 / ((1 + beside / BESIDE**2) * (1 + (off_x.square() + off_y.square()) / ALONG**2))
    return (agree * (z > NEAREST)).sum(2)


def _slope(points: Tensor, axis: int) -> Tensor:
    """[B, 1, J]"""
    return (points[..., axis] / points[..., 2])[:, None]
