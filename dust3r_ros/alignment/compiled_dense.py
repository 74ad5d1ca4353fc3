"""Every pixel's depth given everything else, and what the objective is then; compiled for the CPU, a few thousand pixels at a time."""

from __future__ import annotations

import numba
import numpy as np

# As fastmath, but points may be infinite or not a number.
MATHS = {"reassoc", "contract", "arcp", "nsz", "afn"}
LN2 = np.float32(0.6931471805599453)
ROOT2 = np.float32(1.4142135)


@numba.njit(cache=True, fastmath=MATHS, nogil=True, error_model="numpy")
def dense_side(points, confidence, transform, u, v, known, a, b, w, most):
    """One side of an image on some pixels, float32: `a` where along its ray each point is nearest (a depth along z), `b` the square of how
    far off the ray it is, `w` the log of its confidence, 0 where nothing is known. `most` is raised to the confidence.

    points [P, 3], confidence [P]; transform [3, 4] from the pair's frame to the camera's; rays (u, v, 1) [P].
    """
    t00, t01, t02, t03 = transform[0, 0], transform[0, 1], transform[0, 2], transform[0, 3]
    t10, t11, t12, t13 = transform[1, 0], transform[1, 1], transform[1, 2], transform[1, 3]
    t20, t21, t22, t23 = transform[2, 0], transform[2, 1], transform[2, 2], transform[2, 3]
    zero, one, half, far = np.float32(0.0), np.float32(1.0), np.float32(0.5), np.float32(1e30)
    flat = points.ravel()  # without a copy; and nothing branches here: else the loop is done pixel by pixel, four times as long
    for s in range(len(u)):
        x, y, z = flat[3 * s], flat[3 * s + 1], flat[3 * s + 2]
        cx = t00 * x + t01 * y + t02 * z + t03
        cy = t10 * x + t11 * y + t12 * z + t13
        cz = t20 * x + t21 * y + t22 * z + t23
        along = (cx * u[s] + cy * v[s] + cz) / (u[s] * u[s] + v[s] * v[s] + one)
        ex, ey, ez = cx - along * u[s], cy - along * v[s], cz - along
        off = ex * ex + ey * ey + ez * ez
        finite = off < far
        a[s] = along if finite else zero
        b[s] = off if finite else zero
        sure = confidence[s]
        is_known = finite & (sure > known) & (sure < far)
        w[s] = sure if is_known else one
        most[s] = w[s] if w[s] > most[s] else most[s]
    # The logarithm: the exponent, and of the rest in 1..2 the series of 2 artanh((m - 1) / (m + 1)).
    bits = w.view(np.int32)
    for s in range(len(u)):
        exponent = np.float32((bits[s] >> 23) - 127)
        bits[s] = (bits[s] & 0x7FFFFF) | 0x3F800000
        m = w[s]
        high = m > ROOT2
        m = m * half if high else m
        t = (m - one) / (m + one)
        t2 = t * t
        series = one + t2 * (np.float32(1 / 3) + t2 * (np.float32(1 / 5) + t2 * (np.float32(1 / 7) + t2 * np.float32(1 / 9))))
        w[s] = np.float32(2.0) * t * series + LN2 * (exponent + (one if high else zero))


@numba.njit(cache=True, fastmath=MATHS, nogil=True, error_model="numpy")
def dense_depths(a, b, w, square, rounds, depth, cost):
    """The depth of each pixel of least sum of w sqrt(square (depth - a)^2 + b), a, b, w [K, P], from the weighted mean. `rounds` [R, 2]:
    the square of the smoothing, which must fall to lead past the kinks of the norm, and alpha, 0 for reweighting, 1 for Newton's step.
    cost [K] gains the sides' sums.

    The sum is convex in the depth. 0 where nothing is known, and never below 0.
    """
    sides, count = a.shape
    top, bottom = np.empty(count, np.float32), np.empty(count, np.float32)
    zero, least = np.float32(0.0), np.float32(1e-30)
    top[:], bottom[:] = zero, least
    for k in range(sides):
        at, weight = a[k], w[k]
        for s in range(count):
            top[s] += weight[s] * at[s]
            bottom[s] += weight[s]
    for s in range(count):
        depth[s] = top[s] / bottom[s]
    one = np.float32(1.0)
    for turn in range(len(rounds)):
        eps, alpha = rounds[turn, 0], rounds[turn, 1]
        top[:], bottom[:] = zero, least
        for k in range(sides):
            at, off, weight = a[k], b[k], w[k]
            for s in range(count):
                d = depth[s] - at[s]
                along = square[s] * d * d
                inverse = one / np.sqrt(along + off[s] + eps)
                say = weight[s] * inverse
                top[s] += say * d
                bottom[s] += say * (one - alpha * along * inverse * inverse)
        for s in range(count):
            depth[s] -= top[s] / bottom[s]
    for s in range(count):
        depth[s] = max(depth[s], zero)
    for k in range(sides):
        total = 0.0
        at, off, weight = a[k], b[k], w[k]
        for s in range(count):
            d = depth[s] - at[s]
            total += np.float64(weight[s] * np.sqrt(square[s] * d * d + off[s]))
        cost[k] += total
