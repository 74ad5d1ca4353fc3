"""Maps over a view's pixels: flow to another view, and depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Flow:
    """Where each pixel of one view lies in another."""

    x: NDArray[np.float32]  # [h, w] pixels of the other view
    y: NDArray[np.float32]  # [h, w]
    error: NDArray[np.float32]  # [h, w] pixels: forward-backward distance; UNKNOWN outside the other view

    @property
    def overlap(self) -> float:
        """Share of the pixels that agree forward and backward within a pixel and a half."""
        return float(np.count_nonzero(self.error < 1.5)) / self.error.size


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Depth and confidence of a view's every pixel."""

    depth: NDArray[np.float32]  # [h, w] along z, > 0 everywhere (filled where unknown)
    confidence: NDArray[np.float32]  # [h, w] >= 1; 1 where filled
