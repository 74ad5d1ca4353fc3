"""The images' second-order models put together into one system; compiled for the CPU."""

from __future__ import annotations

import numba
import numpy as np

from dust3r_ros.alignment.compiled import EDGE, POSE


@numba.njit(cache=True, nogil=True, error_model="numpy")
def assemble(start, products, gradient, gram, gram_start, shared_slope, local, band, matrix, right):
    """The images' models into one symmetric system; the pose acts as minus all its pairs' first six at once.

    local [7 M + 7 N]: where each image's unknowns lie (its pairs', its pose's, its focal length's), -1 if fixed. gram: the images' products
    of `shared`, one after the other from gram_start. shared_slope [7 M + N]: `shared` times `slope`. matrix: LAPACK's lower band
    [band + 1, size]; or with band -1 the lower triangle [size, size], with -2 every entry [1, entries] in the order of `entries`.
    """
    images = len(start) - 1
    most = 0
    for n in range(images):
        most = max(most, start[n + 1] - start[n])
    whole, value = np.empty((EDGE * most + 7, EDGE * most + 7)), np.empty(EDGE * most + 7)
    entry = 0
    for n in range(images):
        sides = start[n + 1] - start[n]
        inner = EDGE * sides + 1
        size = inner + POSE
        at_gram, at_row = gram_start[n], EDGE * start[n] + n
        for i in range(inner):
            to = i if i < inner - 1 else size - 1
            for j in range(inner):
                whole[to, j if j < inner - 1 else size - 1] = -gram[at_gram + i * inner + j]
            value[to] = -shared_slope[at_row + i]
        for k in range(sides):
            m = start[n] + k
            for i in range(EDGE):
                for j in range(EDGE):
                    whole[EDGE * k + i, EDGE * k + j] += products[m, i, j]
                whole[EDGE * k + i, size - 1] += products[m, i, 7]
                whole[size - 1, EDGE * k + i] += products[m, 7, i]
                value[EDGE * k + i] += gradient[m, i]
            whole[size - 1, size - 1] += products[m, 7, 7]
            value[size - 1] += gradient[m, 7]
        pose = inner - 1
        for i in range(POSE):
            value[pose + i] = 0.0
            for j in range(size):
                whole[pose + i, j] = 0.0
        for k in range(sides):
            for i in range(POSE):
                value[pose + i] -= value[EDGE * k + i]
                for j in range(pose):
                    whole[pose + i, j] -= whole[EDGE * k + i, j]
                whole[pose + i, size - 1] -= whole[EDGE * k + i, size - 1]
        for i in range(POSE):
            for j in range(pose):
                whole[j, pose + i] = whole[pose + i, j]
            whole[size - 1, pose + i] = whole[pose + i, size - 1]
        for k in range(sides):
            for i in range(POSE):
                for j in range(POSE):
                    whole[pose + i, pose + j] -= whole[pose + i, EDGE * k + j]
        base = EDGE * start[n] + 7 * n
        for i in range(size):
            row = local[base + i]
            if row < 0:
                continue
            right[row] += value[i]
            for j in range(size):
                column = local[base + j]
                if column < 0 or column > row:
                    continue
                if band >= 0:
                    matrix[row - column, column] += whole[i, j]
                elif band == -1:
                    matrix[row, column] += whole[i, j]
                else:
                    matrix[0, entry] = whole[i, j]
                    entry += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def entries(start, local):
    """Rows and columns of all that `assemble` adds to the lower triangle, in its order."""
    count = 0
    for n in range(len(start) - 1):
        base, size = EDGE * start[n] + 7 * n, EDGE * (start[n + 1] - start[n]) + 7
        free = 0
        for i in range(size):
            free += local[base + i] >= 0
        count += free * free  # at most
    rows, columns = np.empty(count, np.int64), np.empty(count, np.int64)
    at = 0
    for n in range(len(start) - 1):
        base, size = EDGE * start[n] + 7 * n, EDGE * (start[n + 1] - start[n]) + 7
        for i in range(size):
            row = local[base + i]
            if row < 0:
                continue
            for j in range(size):
                column = local[base + j]
                if 0 <= column <= row:
                    rows[at], columns[at] = row, column
                    at += 1
    return rows[:at], columns[:at]
