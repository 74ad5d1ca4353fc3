"""Sums that the compiled parts of the geometry share. Without BLAS, whose threads would wait beside those of torch."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def product(a, b):
    """Of two rows [N] float32."""
    total = np.float32(0)
    for k in range(len(a)):
        total += a[k] * b[k]
    return total
