"""The patches of `patch_tracking` tracked one after another, compiled for the CPU (Numba): torch needs a dozen passes over all of them."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def track(own, other, middles, slant, is_sought, settings, end, evidence):
    """own [B, H, W], other [B, H2, W2], middles [M, 2], slant [B, M, 2, 2]; end [B, M, 2] begins at the start; evidence [B, M, 4].

    Who is not sought, [B, M], stays there, and nothing is said of him.
    """
    side, spread, steps, largest, least_slope, least_gain, largest_gain = settings
    count = side * side
    weight = np.empty(count, np.float32)
    offset_x, offset_y = np.empty(count, np.float32), np.empty(count, np.float32)
    for i in range(side):
        for j in range(side):
            x, y = j - (side - 1) / 2, i - (side - 1) / 2
            offset_x[i * side + j], offset_y[i * side + j] = x, y
            weight[i * side + j] = np.exp(-(x * x + y * y) / (2 * spread * spread))
    weight /= weight.sum()
    patch, slope_x, slope_y = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count, np.float32)
    seen = np.empty(count, np.float32)
    for b in range(len(own)):
        for m in range(len(middles)):
            if not is_sought[b, m]:
                evidence[b, m] = 0
                continue
            _cut(own[b], middles[m], side, weight, patch, slope_x, slope_y)
            xx, xy, yy = np.float32(least_slope), np.float32(0), np.float32(least_slope)
            own_power = np.float32(0)
            for k in range(count):
                xx += weight[k] * slope_x[k] * slope_x[k]
                xy += weight[k] * slope_x[k] * slope_y[k]
                yy += weight[k] * slope_y[k] * slope_y[k]
                own_power += weight[k] * patch[k] * patch[k]
            determinant = xx * yy - xy * xy
            a, c, d, e = slant[b, m, 0, 0], slant[b, m, 0, 1], slant[b, m, 1, 0], slant[b, m, 1, 1]
            product, power, left, length = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for _ in range(steps):
                _draw(other[b], end[b, m], a, c, d, e, offset_x, offset_y, seen)
                mean = np.float32(0)
                for k in range(count):
                    mean += weight[k] * seen[k]
                product, power = np.float32(0), np.float32(0)
                for k in range(count):
                    seen[k] -= mean
                    product += weight[k] * seen[k] * patch[k]
                    power += weight[k] * seen[k] * seen[k]
                gain = min(max(product / (power + np.float32(1e-6)), np.float32(least_gain)), np.float32(largest_gain))
                by_x, by_y, left = np.float32(0), np.float32(0), np.float32(0)
                for k in range(count):
                    residual = gain * seen[k] - patch[k]
                    by_x += weight[k] * slope_x[k] * residual
                    by_y += weight[k] * slope_y[k] * residual
                    left += weight[k] * residual * residual
                step_x, step_y = (yy * by_x - xy * by_y) / determinant, (xx * by_y - xy * by_x) / determinant
                length = np.sqrt(step_x * step_x + step_y * step_y)
                if length > largest:
                    step_x, step_y, length = step_x * largest / length, step_y * largest / length, np.float32(largest)
                end[b, m, 0] -= a * step_x + c * step_y
                end[b, m, 1] -= d * step_x + e * step_y
            half = (xx + yy) / 2
            least = half - np.sqrt(max(half * half - determinant, np.float32(0)))
            evidence[b, m, 0] = product / (np.sqrt(power * own_power) + np.float32(1e-6))
            evidence[b, m, 1], evidence[b, m, 2], evidence[b, m, 3] = left, max(least, np.float32(least_slope)), length


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _cut(picture, middle, side, weight, patch, slope_x, slope_y):
    """The patch around a place between four pixels, and how it rises, each beside its mean."""
    height, width = picture.shape
    column = int(np.floor(middle[0] + (width - 1) / 2)) - side // 2 + 1
    row = int(np.floor(middle[1] + (height - 1) / 2)) - side // 2 + 1
    mean, mean_x, mean_y = np.float32(0), np.float32(0), np.float32(0)
    for i in range(side):
        y = min(max(row + i, 0), height - 1)
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for j in range(side):
            x = min(max(column + j, 0), width - 1)
            before, after = max(x - 1, 0), min(x + 1, width - 1)
            k = i * side + j
            patch[k] = picture[y, x]
            slope_x[k] = (picture[y, after] - picture[y, before]) / 2
            slope_y[k] = (picture[below, x] - picture[above, x]) / 2
            mean += weight[k] * patch[k]
            mean_x += weight[k] * slope_x[k]
            mean_y += weight[k] * slope_y[k]
    for k in range(len(patch)):
        patch[k] -= mean
        slope_x[k] -= mean_x
        slope_y[k] -= mean_y


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _draw(picture, end, a, c, d, e, offset_x, offset_y, seen):
    """The other picture between its pixels, where the own patch's pixels lie there."""
    height, width = picture.shape
    middle_x, middle_y = end[0] + np.float32((width - 1) / 2), end[1] + np.float32((height - 1) / 2)
    for k in range(len(seen)):
        x = min(max(middle_x + a * offset_x[k] + c * offset_y[k], np.float32(0)), np.float32(width - 1))
        y = min(max(middle_y + d * offset_x[k] + e * offset_y[k], np.float32(0)), np.float32(height - 1))
        column, row = min(int(x), width - 2), min(int(y), height - 2)
        across, down = x - column, y - row
        upper = picture[row, column] + across * (picture[row, column + 1] - picture[row, column])
        lower = picture[row + 1, column] + across * (picture[row + 1, column + 1] - picture[row + 1, column])
        seen[k] = upper + down * (lower - upper)
