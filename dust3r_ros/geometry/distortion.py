"""Lens distortion on normalised coordinates, forward and back, and how far out each lens model can be believed.

Perspective models (plumb_bob, rational_polynomial) take x = X/Z, y = Y/Z; equidistant takes the angle from the optical axis. A polynomial
turns back somewhere outside the image it was fitted to. Past that fold a point would land in the picture a second time, so everything here
is limited to the inside of the fold and says NaN beyond it.

Sources: OpenCV's calib3d documentation; Kannala and Brandt, A generic camera model, PAMI 2006 (equidistant).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ITERATIONS = 20  # Newton doubles its digits each time; 20 also covers the bracketed steps near the fold
TOLERANCE = 1e-9  # normalised units: far below a thousandth of a pixel
NEGLIGIBLE = 1e-12
MAX_THETA = np.pi * (1 - 1e-9)


def distort(xy: Array, coefficients: tuple[float, ...]) -> Array:
    """[N, 2] ideal -> [N, 2] distorted, by k1 k2 p1 p2 (k3 (k4 k5 k6)); NaN beyond the fold."""
    _, _, p1, p2, *_ = _eight(coefficients)
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    inside = r2 <= fold_radius(coefficients) ** 2
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        radial = _stretch(r2, coefficients)
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.where(inside[:, None], np.stack([u, v], axis=-1), np.nan)


def undistort(distorted: Array, coefficients: tuple[float, ...]) -> Array:
    """[N, 2] distorted -> [N, 2] ideal; NaN where no ideal point inside the fold is seen.

    The radius is inverted first, alone and bracketed, then both coordinates with the tangential part by Newton's method. (OpenCV's
    fixed-point iteration diverges for strong lenses.)
    """
    limit = fold_radius(coefficients)
    radius = np.linalg.norm(distorted, axis=1)
    ideal = _invert(lambda r: r * _stretch(r * r, coefficients), radius, min(limit, 1e3), clamp=True)
    xy = distorted * np.divide(ideal, radius, out=np.ones_like(radius), where=radius > 0)[:, None]
    for _ in range(ITERATIONS):
        error = distort(xy, coefficients) - distorted
        if not np.nanmax(np.abs(error), initial=0.0) > TOLERANCE * 1e-3:
            break
        step = _solve_symmetric(_jacobian(xy, coefficients), error)
        xy = xy - np.where(np.isfinite(step), step, 0.0)
    error = np.abs(distort(xy, coefficients) - distorted).max(axis=1)
    return np.where((error < TOLERANCE * np.maximum(1.0, radius))[:, None], xy, np.nan)


@lru_cache(maxsize=64)
def fold_radius(coefficients: tuple[float, ...]) -> float:
    """The ideal radius (tangent of the angle from the axis) at which the distorted radius stops growing; inf if it never does."""
    k1, k2, _, _, k3, k4, k5, k6 = _eight(coefficients)
    numerator, denominator = np.poly1d([k3, 0, k2, 0, k1, 0, 1, 0]), np.poly1d([k6, 0, k5, 0, k4, 0, 1])
    slope = numerator.deriv() * denominator - numerator * denominator.deriv()
    return min(_first_positive_root(slope), _first_positive_root(denominator))


def distort_angle(theta: Array, coefficients: tuple[float, ...]) -> Array:
    """[N] angle from the axis (radians) -> [N] distorted radius of the equidistant model, by k1..k4; NaN beyond the fold."""
    return np.where(theta <= fold_angle(coefficients), _angle_polynomial(theta, coefficients), np.nan)


def undistort_angle(radius: Array, coefficients: tuple[float, ...]) -> Array:
    """[N] distorted radius -> [N] angle from the axis (radians, may exceed 90 degrees); NaN where no angle inside the fold gives it."""
    return _invert(lambda theta: _angle_polynomial(theta, coefficients), radius, fold_angle(coefficients), clamp=False)


@lru_cache(maxsize=64)
def fold_angle(coefficients: tuple[float, ...]) -> float:
    """The angle from the axis at which the equidistant model's radius stops growing, at most 180 degrees."""
    k1, k2, k3, k4 = coefficients
    return min(_first_positive_root(np.poly1d([k4, 0, k3, 0, k2, 0, k1, 0, 1, 0]).deriv()), MAX_THETA)


def _eight(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    return (*coefficients, *([0.0] * (8 - len(coefficients))))


def _stretch(r2: Array, coefficients: tuple[float, ...]) -> Array:
    """Distorted over ideal radius, from the squared ideal radius."""
    k1, k2, _, _, k3, k4, k5, k6 = _eight(coefficients)
    return (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))


def _angle_polynomial(theta: Array, coefficients: tuple[float, ...]) -> Array:
    k1, k2, k3, k4 = coefficients
    t2 = theta * theta
    return theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))


def _first_positive_root(polynomial: np.poly1d) -> float:
    # A coefficient this small folds nothing that is nearer than 85 degrees, but its inverse can overflow.
    roots = np.poly1d(np.where(np.abs(polynomial.coeffs) < NEGLIGIBLE, 0.0, polynomial.coeffs)).roots
    real = roots.real[(np.abs(roots.imag) < 1e-9 * np.maximum(1.0, np.abs(roots))) & (roots.real > 1e-9)]
    return float(real.min()) if len(real) else float("inf")


def _invert(function: Callable[[Array], Array], values: Array, limit: float, clamp: bool) -> Array:
    """The x in [0, limit] with function(x) = value, for a function that grows there from 0. Beyond its top: nearly `limit` (clamp) or NaN.

    A table gives the cell, false position the place in it (a cell is nearly straight).
    """
    grid = np.concatenate([np.linspace(0.0, min(limit, 4.0), 1024), np.geomspace(4.0, limit, 256)[1:] if limit > 4.0 else []])
    heights = np.asarray(function(grid))
    at = np.clip(np.searchsorted(heights, values), 1, len(grid) - 1)
    low, high = grid[at - 1].copy(), grid[at].copy()
    f_low, f_high = function(low), function(high)
    x = low
    for _ in range(ITERATIONS):
        span = np.where(f_high > f_low, f_high - f_low, 1.0)
        x = low + (high - low) * np.clip((values - f_low) / span, 0.0, 1.0)
        f = function(x)
        if not np.max(np.abs(f - values), initial=0.0) > TOLERANCE:
            break
        below = f < values
        low, f_low = np.where(below, x, low), np.where(below, f, f_low)
        high, f_high = np.where(below, high, x), np.where(below, f_high, f)
    return np.where(values <= heights[-1], x, 0.999 * limit if clamp else np.nan)


def _jacobian(xy: Array, coefficients: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """Of `distort`, which is symmetric: du/dx, du/dy = dv/dx, dv/dy, each [N]."""
    k1, k2, p1, p2, k3, k4, k5, k6 = _eight(coefficients)
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    stretch = _stretch(r2, coefficients)
    below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    slope = (k1 + r2 * (2 * k2 + r2 * 3 * k3) - stretch * (k4 + r2 * (2 * k5 + r2 * 3 * k6))) / below  # d stretch / d r2
    mixed = 2 * (x * y * slope + p1 * x + p2 * y)
    return stretch + 2 * (x * x * slope + p1 * y + 3 * p2 * x), mixed, stretch + 2 * (y * y * slope + 3 * p1 * y + p2 * x)


def _solve_symmetric(matrix: tuple[Array, Array, Array], right: Array) -> Array:
    a, b, c = matrix
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.stack([c * right[:, 0] - b * right[:, 1], a * right[:, 1] - b * right[:, 0]], axis=-1)
        return np.asarray(step / (a * c - b * b)[:, None])
