"""The C library's allocator, told that what a step frees the next one wants again."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # glibc's names for mallopt, M_...
PAD = 1 << 26


def keep_memory() -> bool:
    """Large tensors come from the heap and the heap is not given back: without, every step on a CPU faults its pages in anew (some
    50,000 faults a step of 8 pairs). False where the C library has no such switches; the process keeps its largest memory from then on."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(*switch) == 1 for switch in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, PAD)))
