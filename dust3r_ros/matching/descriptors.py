"""Matches from descriptors: pixels whose descriptors are each other's most alike.

Leroy et al., MASt3R, ECCV 2024, section 3, "Fast reciprocal matching": instead of all of H W pixels against all, a few start on a grid,
go to their nearest neighbour in the other image and back again, and the walk goes on from where it came back. What comes back to where it
started is a match and walks no further. The likeness never falls along a walk, so every walk ends; most do within a few rounds.
"""

from __future__ import annotations

import torch

from dust3r_ros.kernels import nearest
from dust3r_ros.matching.errors import MatchingError
from dust3r_ros.matching.matches import Matches
from dust3r_ros.matching.pixels import Pixels, matches_of

STEP = 8  # pixels between the starting points: 1/64 of all
ROUNDS = 10  # there and back, at most

Confidence = torch.Tensor | None


def match_descriptors(
    descriptors_1: torch.Tensor,
    descriptors_2: torch.Tensor,
    confidence_1: Confidence = None,
    confidence_2: Confidence = None,
    min_confidence: float = 0.0,
) -> Matches:
    """All reciprocal nearest neighbours, each pixel against each: exact and slow, O(H1 W1 H2 W2), in bounded memory.

    descriptors_1 [H1, W1, D], descriptors_2 [H2, W2, D]: unit length, on one device. confidence_1 [H1, W1], confidence_2 [H2, W2]: pixels
    at or below `min_confidence`, and those that are not finite, have no part in it. Raises MatchingError for shapes that do not match.
    """
    first, second = _both(descriptors_1, descriptors_2, confidence_1, confidence_2, min_confidence)
    rows_1 = torch.arange(len(first), device=first.index.device)
    if not (len(first) and len(second)):
        return matches_of(first, second, rows_1[:0], rows_1[:0])
    rows_2 = nearest(first.values, second.values)
    mutual = nearest(second.values, first.values)[rows_2] == rows_1
    return matches_of(first, second, rows_1[mutual], rows_2[mutual])


def match_descriptors_fast(
    descriptors_1: torch.Tensor,
    descriptors_2: torch.Tensor,
    confidence_1: Confidence = None,
    confidence_2: Confidence = None,
    min_confidence: float = 0.0,
    step: int = STEP,
    rounds: int = ROUNDS,
) -> Matches:
    """Some of the reciprocal nearest neighbours, by walks from a grid of every `step`-th pixel of view 1: a subset of `match_descriptors`.

    Arguments as there. Costs at most 2 `rounds` K searches for K starting points; walks that have not closed after `rounds` give nothing.
    Each match once. Matches at the centres of large basins of attraction are found most: the paper observes better poses from them.
    """
    first, second = _both(descriptors_1, descriptors_2, confidence_1, confidence_2, min_confidence)
    here = first.on_grid(step)
    closed_1, closed_2 = [here[:0]], [here[:0]]
    for _ in range(rounds if len(second) else 0):
        if not len(here):
            break
        there = nearest(first.values[here], second.values)
        back = nearest(second.values[there], first.values)
        closed = back == here
        closed_1.append(here[closed])
        closed_2.append(there[closed])
        here = torch.unique(back[~closed])  # walks that have met go on as one
    rows = torch.unique(torch.stack([torch.cat(closed_1), torch.cat(closed_2)]), dim=1)
    return matches_of(first, second, rows[0], rows[1])


def _both(
    descriptors_1: torch.Tensor, descriptors_2: torch.Tensor, confidence_1: Confidence, confidence_2: Confidence, min_confidence: float
) -> tuple[Pixels, Pixels]:
    first = Pixels.of(descriptors_1, confidence_1, min_confidence, "descriptors of view 1")
    second = Pixels.of(descriptors_2, confidence_2, min_confidence, "descriptors of view 2")
    if descriptors_1.shape[-1] != descriptors_2.shape[-1]:
        raise MatchingError(
            f"descriptors of {descriptors_1.shape[-1]} and {descriptors_2.shape[-1]} numbers: both views' come from one network"
        )
    return first, second
