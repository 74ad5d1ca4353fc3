"""Patches of both views that see the same point are to be alike where the decoders meet them: a small network's first help in matching.

InfoNCE (van den Oord et al., 2018) between the tokens of two views, as MASt3R has it between pixels (Leroy et al., ECCV 2024, equation 9).
Which patches belong together follows from the true pointmaps: no cameras are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.training.losses import PointmapTruth

REACH = 0.75  # of a patch's width in space: how far from its middle a point may lie that it is said to see
FAR = 1e9
TINY = 1e-12


def token_matching_loss(likeness: Tensor, truth: PointmapTruth, patch_size: int) -> Tensor:
    """Cross entropy, both ways, of finding where the other view sees a patch's middle; 0 where no patch is seen twice.

    likeness [B, N, M]: what the softmax over the other view's patches is taken of; truth of the same B pairs. A middle lies between
    middles: they share in being right, as in linear interpolation, so that the mean of their places is where the match lies.
    """
    middle_1, width_1, known_1 = _patches(truth.points_1, truth.valid_1, patch_size)
    middle_2, width_2, known_2 = _patches(truth.points_2, truth.valid_2, patch_size)
    distance = torch.cdist(middle_1, middle_2)
    distance = torch.where(known_1[:, :, None] & known_2[:, None, :], distance, FAR)
    likeness = likeness.float()
    one, count_1 = _one_way(likeness, distance, width_2)
    two, count_2 = _one_way(likeness.transpose(1, 2), distance.transpose(1, 2), width_1)
    return (one + two) / (count_1 + count_2).clamp_min(1)


def _patches(points: Tensor, valid: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each patch's middle [B, N, 3], its width in space [B, N] and whether both are known."""
    at = slice(size // 2, None, size)
    beside = slice(size // 2 - 1, None, size)
    middle, left, above = points[:, at, at], points[:, at, beside], points[:, beside, at]
    known = valid[:, at, at] & valid[:, at, beside] & valid[:, beside, at]
    step = torch.minimum((middle - left).norm(dim=-1), (middle - above).norm(dim=-1))  # the lesser: a slanted or torn patch is no wider
    return middle.flatten(1, 2), (size * step).flatten(1), known.flatten(1)


def _one_way(likeness: Tensor, distance: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropies of the rows that have a partner, and how many have."""
    nearest, partner = distance.min(2)
    wide = width.gather(1, partner)
    found = nearest < REACH * wide
    share = torch.where(found[..., None], (1 - distance / wide[..., None].clamp_min(TINY)).clamp_min(0), 0.0)  # else a width may be NaN
    share = share / share.sum(2, keepdim=True).clamp_min(TINY)
    return -(share * likeness.log_softmax(2)).sum(), found.sum()
