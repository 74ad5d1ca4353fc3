"""Many pairs' scores as one row of figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dust3r_ros.training.evaluation.pair_run import PairScore

RIGHT = 15.0  # degrees


@dataclass(frozen=True)
class Figures:
    """One model on one data set; None: not measured there. Shares and relative errors are 0..1."""

    pairs: int  # directed ones that were scored; for a sequence the images
    points_error: float | None = None  # mean normalised distance
    depth_abs_rel: float | None = None
    depth_within_25_percent: float | None = None
    depth_abs_rel_estimated: float | None = None  # over the pixels with an estimate alone
    rra_15: float | None = None  # share of the pairs whose rotation is within 15 degrees
    rta_15: float | None = None  # share of those that move whose translation's direction is within 15 degrees
    focal_error: float | None = None  # median; 1 where it is not determined
    ause: float | None = None
    confidence_correlation: float | None = None
    coverage: float | None = None
    seconds: float | None = None  # median time of a pair, both ways; of a sequence, the time of an image
    ate_percent: float | None = None  # of a sequence
    placed: float | None = None  # share of a sequence's images that got a pose

    def words(self) -> dict[str, Any]:
        """For a file: rounded to what means something."""
        return {name: round(value, 5) if isinstance(value, float) else value for name, value in asdict(self).items()}


def summarise(scores: Sequence[PairScore]) -> Figures:
    """Means over the pairs, but for the focal error and the time, which are medians."""
    depths = [score.depth for score in scores if score.depth is not None]
    confidences = [score.confidence for score in scores if score.confidence is not None]
    turns = [score.pose.rotation_degrees for score in scores]
    moves = [score.pose.translation_degrees for score in scores if score.pose.translation_degrees is not None]
    return Figures(
        pairs=len(scores),
        points_error=_mean(score.points for score in scores if score.points is not None),
        depth_abs_rel=_mean(depth.abs_rel for depth in depths),
        depth_within_25_percent=_mean(depth.within_25_percent for depth in depths),
        depth_abs_rel_estimated=_mean(depth.abs_rel_estimated for depth in depths if depth.abs_rel_estimated is not None),
        rra_15=_mean(float(degrees < RIGHT) for degrees in turns),
        rta_15=_mean(float(degrees < RIGHT) for degrees in moves),
        focal_error=_median(1.0 if score.focal is None else score.focal for score in scores),
        ause=_mean(confidence.ause for confidence in confidences),
        confidence_correlation=_mean(confidence.correlation for confidence in confidences),
        coverage=_mean(score.coverage for score in scores if score.coverage is not None),
        seconds=_median(score.seconds for score in scores),
    )


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.median(found)) if found else None
