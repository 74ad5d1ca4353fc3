"""Keyframes' depth, refined by what pairs with the frames after them say of it: a running mean, weighted by confidence.

Murai et al., MASt3R-SLAM, CVPR 2025, section 3.4: the canonical pointmap X <- (C X + c x) / (C + c), C <- C + c. Here along the keyframe's
rays, beside the depth that the alignment has found, and with the alignment's weight of a confidence, its logarithm.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.types import Keyframe

TRUSTED = 1.5  # a confidence from which a pixel counts as seen
REMEMBERED = (
    32  # pairs as sure as the newest: what is older says less and less, and a camera that stands still does not outvote the alignment
)
OUTLIERS = 3.0  # standard deviations of a pair's pixels beyond which one that says something else is left as it is
LEAST_SPREAD, MOST_SPREAD = 0.003, 0.1  # log: what a standard deviation is at least and at most

Depth = NDArray[np.float32]


class RefinedDepths:
    """By keyframe of the window. Depths are kept in the keyframes' own units, which no correction of the map changes."""

    def __init__(self) -> None:
        self._known: dict[int, _Refined] = {}

    def fuse(self, keyframe: Keyframe, unit: float, pairs: int, depth: Depth, confidence: NDArray[np.float32]) -> Keyframe:
        """The keyframe with its depth refined by a pair's: [h, w] in map units, on the keyframe's scale, 0 where it says nothing.

        `unit`: how many map units the keyframe's own unit is; `pairs`: how many told the alignment of it.
        """
        known = self._known.get(keyframe.index)
        if known is None:
            known = self._known[keyframe.index] = _Refined(keyframe, unit, pairs)
        known.fuse(depth / np.float32(unit), confidence)
        return known.refined(keyframe, unit)

    def aligned(self, keyframe: Keyframe, unit: float, pairs: int) -> Keyframe:
        """The alignment has found the keyframe's depth anew: with what was fused until then."""
        known = self._known.get(keyframe.index)
        if known is None:
            return keyframe
        known.aligned_anew(keyframe, unit, pairs)
        return known.refined(keyframe, unit)

    def forget(self, index: int) -> None:
        self._known.pop(index, None)


class _Refined:
    """One keyframe's depth by the alignment, and the running mean of what pairs with frames say."""

    def __init__(self, keyframe: Keyframe, unit: float, pairs: int) -> None:
        self._take(keyframe, unit, pairs)
        self._mean, self._weight = np.zeros_like(keyframe.depth), np.zeros_like(keyframe.depth)

    def fuse(self, depth: Depth, confidence: NDArray[np.float32]) -> None:
        now = self._depth()
        off = _log_ratio(depth, now)
        there = np.isfinite(off)
        if not there.any():
            return
        spread = min(max(LEAST_SPREAD, 1.4826 * float(np.median(np.abs(off[there])))), MOST_SPREAD)
        same = there & (np.abs(np.where(there, off, np.inf)) <= OUTLIERS * spread)
        own = np.where(same, np.log(np.maximum(confidence, 1.0)), np.float32(0))
        before = np.minimum(self._weight, (REMEMBERED - 1) * own)
        before = np.where(same, before, self._weight)
        total = before + own
        self._mean = np.where(same, (before * self._mean + own * depth) / np.maximum(total, 1e-9), self._mean).astype(np.float32)
        self._weight = total.astype(np.float32)

    def aligned_anew(self, keyframe: Keyframe, unit: float, pairs: int) -> None:
        """On another scale, maybe: what was fused goes along."""
        before = self._mean
        self._take(keyframe, unit, pairs)
        off = _log_ratio(self._aligned, before)
        if np.isfinite(off).any():
            self._mean = before * np.float32(np.exp(np.median(off[np.isfinite(off)])))

    def refined(self, keyframe: Keyframe, unit: float) -> Keyframe:
        return replace(keyframe, depth=self._depth() * np.float32(unit))

    def _take(self, keyframe: Keyframe, unit: float, pairs: int) -> None:
        self._aligned = keyframe.depth / np.float32(unit)
        trusted = (keyframe.depth > 0) & (keyframe.confidence >= TRUSTED)
        self._aligned_weight = np.where(trusted, pairs * np.log(np.maximum(keyframe.confidence, 1.0)), 0).astype(np.float32)

    def _depth(self) -> Depth:
        total = self._aligned_weight + self._weight
        mean = (self._aligned_weight * self._aligned + self._weight * self._mean) / np.maximum(total, 1e-9)
        return np.where(self._weight > 0, mean, self._aligned).astype(np.float32)


def _log_ratio(one: Depth, other: Depth) -> NDArray[np.float32]:
    """[h, w]; not a number where either is not known."""
    known = (one > 0) & (other > 0)
    return np.where(known, np.log(np.where(known, one, 1) / np.where(known, other, 1)), np.nan).astype(np.float32)
