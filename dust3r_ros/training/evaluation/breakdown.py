"""Where a model fails: its figures on held-out pairs, by how much the two views share and how wide the cameras see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dust3r_ros.demo.inputs import TrueView
from dust3r_ros.estimators import Estimator
from dust3r_ros.training.evaluation.pair_run import PairScore, pair_scores
from dust3r_ros.training.evaluation.summary import Figures, summarise
from dust3r_ros.training.evaluation.truth import TruePair, overlap

OVERLAPS = ((0.0, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.01))
FIELDS_OF_VIEW = ((0.0, 60.0), (60.0, 85.0), (85.0, 180.0))  # degrees across the width


@dataclass(frozen=True)
class Band:
    """The directed pairs within some limits."""

    words: str
    figures: Figures


def breakdown(estimator: Estimator, pairs: Sequence[TruePair]) -> list[Band]:
    """Bands of overlap (the first view's share that the second sees), then of the first view's field of view; empty ones are left out."""
    scores = list(pair_scores(estimator, pairs))
    directed = [views for pair in pairs for views in ((pair.first, pair.second), (pair.second, pair.first))]
    shared = [overlap(first, second, step=4) for first, second in directed]
    angles = [field_of_view(first) for first, _ in directed]
    bands = _bands(scores, shared, OVERLAPS, lambda low, high: f"{100 * low:.0f} to {100 * min(high, 1):.0f} % of the view is shared")
    return bands + _bands(scores, angles, FIELDS_OF_VIEW, _angle_words)


def field_of_view(view: TrueView) -> float:
    """Degrees across the width."""
    return 2 * math.degrees(math.atan(view.camera.width / 2 / view.camera.fx))


def _bands(
    scores: Sequence[PairScore],
    values: Sequence[float],
    limits: Sequence[tuple[float, float]],
    words: Callable[[float, float], str],
) -> list[Band]:
    found = []
    for low, high in limits:
        inside = [score for score, value in zip(scores, values, strict=True) if low <= value < high]
        if inside:
            found.append(Band(words(low, high), summarise(inside)))
    return found


def _angle_words(low: float, high: float) -> str:
    if low == 0:
        return f"field of view under {high:.0f} degrees"
    return f"field of view over {low:.0f} degrees" if high >= 180 else f"field of view of {low:.0f} to {high:.0f} degrees"
