"""How many metres a map unit is, from measurements that have both: robust means of ratios, each with what it can be trusted.

All work on logarithms of ratios metric/map: scale is multiplicative, and a ratio of two is as wrong as one of a half. A
redescending M-estimator (Tukey's biweight; Huber and Ronchetti, Robust Statistics, 2009, chapters 4 and 6) starts at the median, so that
less than half of the samples may be wrong: wheels that slip, a hand before the sensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BIWEIGHT = 4.685  # standard deviations beyond which a sample does not count: 95 % efficient where noise is normal
LEAST_SPREAD = 0.002  # of a ratio: nothing is measured better, and numbers that are too equal do not make all others outliers
FARTHEST = 20.0  # of a log ratio: of what did not move at all
STEPS = 20
MIN_CORRELATED = 8  # samples from which their correlation in time can be told


@dataclass(frozen=True)
class ScaleEstimate:
    """Metres per map unit."""

    scale: float
    uncertainty: float  # one standard deviation as a share of the scale: of chance alone, not of what is wrong with all samples alike
    samples: int  # that counted


def scale_of_ratios(metric: Array, mapped: Array, sigma: Array | float = 1.0) -> ScaleEstimate | None:
    """The scale that pairs of lengths agree on; None for fewer than two of them.

    metric [N] metres, mapped [N] map units, in order of time. sigma [N]: standard deviations of the log ratios against one another. Samples
    that are not finite or not above 0 in `metric` are left out; one that the map says nothing of (0 units) is an outlier.
    """
    metric, mapped = np.asarray(metric, np.float64), np.asarray(mapped, np.float64)
    sigma = np.broadcast_to(np.asarray(sigma, np.float64), metric.shape)
    usable = np.isfinite(metric) & np.isfinite(mapped) & (metric > 0) & (mapped >= 0) & np.isfinite(sigma) & (sigma > 0)
    if int(usable.sum()) < 2:
        return None
    with np.errstate(divide="ignore"):
        ratio = np.clip(np.log(metric[usable]) - np.log(mapped[usable]), -FARTHEST, FARTHEST)
    sigma = sigma[usable] / np.median(sigma[usable])
    centre = weighted_median(ratio, 1.0 / sigma)
    spread = max(1.4826 * float(np.median(np.abs(ratio - centre) / sigma)), LEAST_SPREAD)
    weight = np.ones_like(ratio)
    for _ in range(STEPS):
        off = (ratio - centre) / (BIWEIGHT * spread * sigma)
        weight = np.where(np.abs(off) < 1.0, (1.0 - off**2) ** 2, 0.0) / sigma**2
        if not weight.any():
            return None
        before, centre = centre, float((weight * ratio).sum() / weight.sum())
        if abs(centre - before) < 1e-9:
            break
    counted = weight > 0
    number = float(weight.sum() ** 2 / (weight**2).sum())  # Kish: samples of equal weight that would say as much
    off = np.clip((ratio - centre) / (spread * sigma), -3.0, 3.0)[counted]
    error = spread / math.sqrt(float((weight > 0) @ (1.0 / sigma**2))) * max(1.0, float(np.sqrt((off**2).mean())))
    error *= _correlation(off) * math.sqrt(1.0 + 2.0 / max(number - 1.0, 0.5))  # few samples know their own spread badly
    return ScaleEstimate(math.exp(centre), error, int(counted.sum()))


def scale_of_depths(metric: Array, mapped: Array) -> tuple[float, float] | None:
    """One view's depths side by side: (median ratio metric/map, its standard deviation as a share); None without any.

    metric [N] metres, mapped [N] map units, both along z of the same pixels; 0 where one of them is not known.
    """
    metric, mapped = np.asarray(metric, np.float64), np.asarray(mapped, np.float64)
    known = (metric > 0) & (mapped > 0) & np.isfinite(metric) & np.isfinite(mapped)
    if not known.any():
        return None
    ratio = np.log(metric[known]) - np.log(mapped[known])
    middle = float(np.median(ratio))
    spread = 1.4826 * float(np.median(np.abs(ratio - middle))) if len(ratio) >= 5 else 0.1
    # Neighbouring pixels err together: more than a hundred of one view say no more than a hundred.
    return math.exp(middle), max(1.2533 * spread / math.sqrt(min(len(ratio), 100)), LEAST_SPREAD)


def weighted_median(values: Array, weights: Array) -> float:
    """The value at which half of the weight lies on each side."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    at = int(np.searchsorted(total, 0.5 * total[-1]))
    if at + 1 < len(order) and math.isclose(float(total[at]), 0.5 * float(total[-1])):
        return 0.5 * float(values[order[at]] + values[order[at + 1]])
    return float(values[order[at]])


def _correlation(residuals: Array) -> float:
    """How much larger the mean's error is because neighbours in time err alike (an AR(1) process): a scale that drifts is no noise."""
    if len(residuals) < MIN_CORRELATED:
        return 1.0
    off = residuals - residuals.mean()
    power = float((off**2).sum())
    alike = float((off[1:] * off[:-1]).sum()) / power if power > 0 else 0.0
    alike = min(max(alike, 0.0), 0.9)
    return math.sqrt((1.0 + alike) / (1.0 - alike))
