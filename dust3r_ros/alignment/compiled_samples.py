"""Picking chosen pixels out of pointmaps, compiled for the CPU."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_confidences(confidence, index, total):
    """total [S, C] += the confidences [P] at pixels index [S, C], less 1; what is not finite counts for nothing."""
    for s in range(index.shape[0]):
        for c in range(index.shape[1]):
            value = confidence[index[s, c]]
            if value > 1.0 and value < 1e30:
                total[s, c] += value - np.float32(1.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def pick(points, confidence, index, known, share, out, weight):
    """Points [P, 3] and log confidences, times `share`, at pixels index [S] into out [3, S] and weight [S]; 0 where nothing is known."""
    for s in range(len(index)):
        p = index[s]
        x, y, z, c = points[p, 0], points[p, 1], points[p, 2], confidence[p]
        if c > known and c < 1e30 and abs(x) < 1e15 and abs(y) < 1e15 and abs(z) < 1e15:
            out[0, s], out[1, s], out[2, s] = x, y, z
            weight[s] = np.log(np.float64(c)) * share
        else:
            out[0, s], out[1, s], out[2, s], weight[s] = 0.0, 0.0, 0.0, 0.0
