"""Pixels of two views that show the same place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Tokens
from dust3r_ros.geometry import Camera
from dust3r_ros.matching.errors import MatchingError


@dataclass(frozen=True, eq=False)
class Matches:
    """N pairs of pixels (u, v), centres at integers, of the working images unless said otherwise. Raises MatchingError for other shapes."""

    pixels_1: NDArray[np.float64]  # [N, 2] of the first view
    pixels_2: NDArray[np.float64]  # [N, 2] of the second view
    confidence: NDArray[np.float64]  # [N] geometric mean of the two pixels' confidences; 1 where there were none

    def __post_init__(self) -> None:
        for name in ("pixels_1", "pixels_2", "confidence"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        count = len(self.confidence) if self.confidence.ndim == 1 else -1
        if self.pixels_1.shape != (count, 2) or self.pixels_2.shape != (count, 2):
            raise MatchingError(
                f"matches of shapes {self.pixels_1.shape}, {self.pixels_2.shape}, {self.confidence.shape}: give (N, 2), (N, 2) and (N,)"
            )

    def __len__(self) -> int:
        return len(self.confidence)

    def __getitem__(self, chosen: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Matches:
        """Some of them: a slice, a mask [N] or indices."""
        return Matches(self.pixels_1[chosen], self.pixels_2[chosen], self.confidence[chosen])

    def swapped(self) -> Matches:
        """The same with first and second view exchanged."""
        return Matches(self.pixels_2, self.pixels_1, self.confidence)


def in_source(matches: Matches, tokens_1: Tokens, tokens_2: Tokens) -> Matches:
    """Matches of two working images as pixels of the cameras' own images, through lens and resize: `Tokens.camera` to `Tokens.source`.

    Exact to the lens model, not rounded. Those that a source camera cannot see are left out (none, with the working cameras made here).
    """
    first, second = _to_source(matches.pixels_1, tokens_1), _to_source(matches.pixels_2, tokens_2)
    seen = tokens_1.source.contains(first) & tokens_2.source.contains(second)
    return Matches(first[seen], second[seen], matches.confidence[seen])


def _to_source(pixels: NDArray[np.float64], tokens: Tokens) -> NDArray[np.float64]:
    return _between(pixels, tokens.camera, tokens.source)


def _between(pixels: NDArray[np.float64], start: Camera, end: Camera) -> NDArray[np.float64]:
    """Pixels [N, 2] of one camera as those of another of the same centre and axes; NaN where it does not see them."""
    return end.project(start.unproject(pixels))
