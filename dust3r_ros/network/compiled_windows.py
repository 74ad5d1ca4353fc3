"""Likenesses of cells to the places around a point of the other picture, compiled for the CPU (Numba), where nobody learns from them.

`match_refinement.windows` says the same in torch, in a dozen passes over all of them.
"""

from __future__ import annotations

import numba
import numpy as np

from dust3r_ros.network.compiled_sums import product


@numba.njit(cache=True, nogil=True, error_model="numpy")
def of_all(whole, centre, rows, columns, cell, reach, windows):
    """windows [B, M, (2 reach + 1)^2] of each cell's likeness to all places, whole [B, M, rows * columns]; centre [B, M, 2] in pixels."""
    corners = np.empty((2 * reach + 2, 2 * reach + 2), np.float32)
    for b in range(len(whole)):
        for m in range(whole.shape[1]):
            column, row, across, down = _start(centre[b, m], rows, columns, cell, reach)
            for i in range(len(corners)):
                for j in range(len(corners)):
                    is_inside = 0 <= row + i < rows and 0 <= column + j < columns
                    corners[i, j] = whole[b, m, (row + i) * columns + column + j] if is_inside else np.float32(0)
            _between(corners, across, down, windows[b, m])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def of_few(own, others, centre, rows, columns, cell, reach, windows):
    """The same of vectors own [B, M, F] and others [B, rows * columns, F]: only what is looked at is multiplied."""
    corners = np.empty((2 * reach + 2, 2 * reach + 2), np.float32)
    for b in range(len(own)):
        for m in range(own.shape[1]):
            column, row, across, down = _start(centre[b, m], rows, columns, cell, reach)
            for i in range(len(corners)):
                for j in range(len(corners)):
                    is_inside = 0 <= row + i < rows and 0 <= column + j < columns
                    corners[i, j] = product(own[b, m], others[b, (row + i) * columns + column + j]) if is_inside else np.float32(0)
            _between(corners, across, down, windows[b, m])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _start(centre, rows, columns, cell, reach):
    """The window's first column and row, and how far it lies beyond them."""
    x, y = centre[0] / cell + (columns - 1) / 2 - reach, centre[1] / cell + (rows - 1) / 2 - reach
    column, row = np.floor(x), np.floor(y)
    return int(column), int(row), np.float32(x - column), np.float32(y - row)


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _between(corners, across, down, window):
    side = len(corners) - 1
    for i in range(side):
        for j in range(side):
            upper = corners[i, j] * (1 - across) + corners[i, j + 1] * across
            lower = corners[i + 1, j] * (1 - across) + corners[i + 1, j + 1] * across
            window[i * side + j] = upper * (1 - down) + lower * down
