"""The similarity between two sets of matched points.

S. Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991, with weights; and a version that
outliers do not drag along.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.geometry.errors import GeometryError
from dust3r_ros.geometry.similarity import Similarity

Array = NDArray[np.float64]

MIN_SPREAD = 1e-6  # second singular value against the first: below it the points lie on a line and may turn about it
L1_ROUNDS = 10  # the first fit may be far off; the plain norm forgives that where Cauchy's would keep it
CAUCHY_ROUNDS = 20
CONVERGED = 1e-7  # change of the residuals, as a share of their median


def procrustes(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None, with_scale: bool = True) -> Similarity:
    """The similarity (or rigid motion) that minimises sum w |s R source + t - target|^2.

    source, target: [N, 3]; weights: [N], >= 0. Never a reflection. Points that are not finite, and those of weight 0, count for nothing.
    Raises GeometryError for shapes that do not match and for points that leave the answer open: fewer than 3, or all on one line.
    """
    source, target, weights = _checked(source, target, weights)
    found = _fit(source, target, weights, with_scale)
    if found is None:
        used = int((weights > 0).sum())
        raise GeometryError(f"similarity from {used} point pairs is not determined: give at least 3 that do not lie on one line")
    return found


def robust_procrustes(
    source: ArrayLike,
    target: ArrayLike,
    weights: ArrayLike | None = None,
    with_scale: bool = True,
    rounds: tuple[int, int] = (L1_ROUNDS, CAUCHY_ROUNDS),
) -> Similarity | None:
    """As `procrustes`, but outliers lose their say: reweighted for the plain norm, then with Cauchy's weights, at most `rounds` of each.

    The Cauchy scale is 1.4826 times the weighted median residual of each round. Returns None where the points leave the answer open (fewer
    than 3 that count, or all on one line): matches come from images, and images may be like that.
    """
    source, target, weights = _checked(source, target, weights)
    fitted = _fit(source, target, weights, with_scale)
    previous = np.full(len(source), np.inf)
    for round_ in range(sum(rounds)):
        if fitted is None:
            return None
        residual = np.linalg.norm(fitted.apply(source) - target, axis=1)
        middle = _weighted_median(residual, weights)
        extent = float(np.abs(target).max(initial=0.0))
        settled = np.max(np.abs(residual - previous), initial=0.0) <= CONVERGED * middle
        if middle <= 1e-12 * extent or (settled and round_ > rounds[0]):
            break
        previous = residual
        relative = residual / (1.4826 * middle)
        say = 1.0 / np.maximum(relative, 0.1) if round_ < rounds[0] else 1.0 / (1.0 + relative**2)
        fitted = _fit(source, target, weights * say, with_scale)
    return fitted


def _fit(source: Array, target: Array, weights: Array, with_scale: bool) -> Similarity | None:
    if (weights > 0).sum() < 3:
        return None
    share = weights / weights.sum()
    source_mean, target_mean = share @ source, share @ target
    a, b = source - source_mean, target - target_mean
    u, d, vt = np.linalg.svd((b * share[:, None]).T @ a)
    spread_a, spread_b = float(share @ (a * a).sum(1)), float(share @ (b * b).sum(1))
    # Compared with the sets' own spread too, so that two unrelated or shrunken sets do not pass for a fit.
    if not d[1] > MIN_SPREAD**2 * np.sqrt(spread_a * spread_b) or not d[1] > MIN_SPREAD**2 * d[0]:
        return None
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * sign) @ vt
    scale = float(d @ sign) / spread_a if with_scale else 1.0
    if not (np.isfinite(scale) and scale > 0):
        return None
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def _checked(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array, Array]:
    """All float64; what is not finite gets weight 0 and a place at the origin."""
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if a.ndim != 2 or a.shape[1] != 3 or a.shape != b.shape:
        raise GeometryError(f"similarity from points of shapes {a.shape} and {b.shape}: give two sets of N matched points, both (N, 3)")
    w = np.ones(len(a)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(a),):
        raise GeometryError(f"similarity from {len(a)} points with weights of shape {w.shape}: give one weight a point")
    if (w < 0).any():
        raise GeometryError(f"similarity with a weight of {w.min():g}: weights are 0 or more")
    good = np.isfinite(a).all(1) & np.isfinite(b).all(1) & np.isfinite(w)
    return np.where(good[:, None], a, 0.0), np.where(good[:, None], b, 0.0), np.where(good, w, 0.0)


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
