"""Coarse to fine: large images matched window by window, those windows that coarse matches connect.

Leroy et al., MASt3R, ECCV 2024, section 3, "Coarse-to-fine matching": both images are cut into overlapping windows; pairs of windows are
taken greedily until 90 % of the coarse matches lie in one of them; each pair is described and matched at full resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.matching.descriptors import STEP, match_descriptors_fast
from dust3r_ros.matching.errors import MatchingError
from dust3r_ros.matching.matches import Matches

WINDOW, OVERLAP, COVERAGE = 512, 0.5, 0.9  # pixels; shares


@dataclass(frozen=True)
class Window:
    """A part of an image: rows y to y + height, columns x to x + width."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: torch.Tensor) -> torch.Tensor:
        """That part of [H, W, ...]."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]

    def contains(self, pixels: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[N, 2] pixels of the whole image -> [N]"""
        low, high = np.array([self.x, self.y]) - 0.5, np.array([self.x + self.width, self.y + self.height]) - 0.5
        return np.asarray(((pixels >= low) & (pixels < high)).all(axis=1))


Describe = Callable[[Window, Window], tuple[torch.Tensor, torch.Tensor]]


def windows_of(width: int, height: int, side: int = WINDOW, overlap: float = OVERLAP) -> list[Window]:
    """The fewest windows of at most `side` pixels that cover an image evenly, neighbours sharing at least `overlap` of a side."""
    if side < 1 or not 0 <= overlap < 1:
        raise MatchingError(f"windows of {side} pixels with {overlap:g} of overlap: give a side above 0 and an overlap from 0 to below 1")
    columns, rows = _starts(width, side, overlap), _starts(height, side, overlap)
    return [Window(x, y, min(side, width), min(side, height)) for y in rows for x in columns]


def window_pairs(matches: Matches, windows_1: list[Window], windows_2: list[Window], coverage: float = COVERAGE) -> list[tuple[int, int]]:
    """Which pairs of windows to match, as indices, those of most matches first, until `coverage` of the matches lie in one of them."""
    inside_1 = np.stack([window.contains(matches.pixels_1) for window in windows_1], axis=1).astype(np.float64)  # [N, W1]
    inside_2 = np.stack([window.contains(matches.pixels_2) for window in windows_2], axis=1).astype(np.float64)  # [N, W2]
    left = np.ones(len(matches), bool)
    pairs: list[tuple[int, int]] = []
    while left.sum() > (1.0 - coverage) * len(matches) + 1e-6:  # 1 - 0.8 is not quite 0.2
        count = inside_1[left].T @ inside_2[left]
        if not count.any():
            break  # matches outside the images
        first, second = (int(k) for k in np.unravel_index(count.argmax(), count.shape))
        pairs.append((first, second))
        left &= (inside_1[:, first] * inside_2[:, second]) == 0
    return pairs


def match_coarse_to_fine(
    describe: Describe,
    coarse: Matches,
    size_1: tuple[int, int],
    size_2: tuple[int, int],
    side: int = WINDOW,
    overlap: float = OVERLAP,
    coverage: float = COVERAGE,
    step: int = STEP,
) -> Matches:
    """Matches between two large images, in their pixels, from descriptors computed window by window.

    `describe(window_1, window_2)` gives the two windows' descriptors [h, w, D] at full resolution: a network run on the two crops, or
    cuts of known maps. `coarse`: matches found on reduced images, brought to the large images' pixels. size_1, size_2: (width, height) of
    the large images. Where windows disagree about a pixel the more alike pair stays, so that each pixel has at most one partner; confidence
    is 1. None where `coarse` is empty. Raises MatchingError for descriptors that are not of the window's size.
    """
    windows_1, windows_2 = windows_of(*size_1, side, overlap), windows_of(*size_2, side, overlap)
    found = [np.zeros((0, 5))]
    for first, second in window_pairs(coarse, windows_1, windows_2, coverage):
        found.append(_match_windows(describe, windows_1[first], windows_2[second], step))
    rows = np.concatenate(found)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    for columns in (slice(0, 2), slice(2, 4)):  # the most alike first: keep the first of each pixel
        rows = rows[np.sort(np.unique(rows[:, columns], axis=0, return_index=True)[1])]
    return Matches(rows[:, :2], rows[:, 2:4], np.ones(len(rows)))


def _match_windows(describe: Describe, first: Window, second: Window, step: int) -> NDArray[np.float64]:
    """[N, 5]: both pixels in the large images, and how alike they are."""
    descriptors = describe(first, second)
    for window, described in zip((first, second), descriptors, strict=True):
        if tuple(described.shape[:2]) != (window.height, window.width):
            raise MatchingError(f"descriptors of shape {tuple(described.shape)} for {window}: give ({window.height}, {window.width}, D)")
    matches = match_descriptors_fast(*descriptors, step=step)
    one, two = (
        described[tuple(torch.as_tensor(pixels[:, ::-1].astype(np.int64).T.copy(), device=described.device))].float()
        for described, pixels in zip(descriptors, (matches.pixels_1, matches.pixels_2), strict=True)
    )
    alike = (one * two).sum(-1).double().cpu().numpy()
    moved_1, moved_2 = matches.pixels_1 + np.array([first.x, first.y]), matches.pixels_2 + np.array([second.x, second.y])
    return np.column_stack([moved_1, moved_2, alike])


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    stride = max(1, int(side * (1.0 - overlap)))
    count = -(-(length - side) // stride) + 1
    return [int(start) for start in np.rint(np.linspace(0, length - side, count))]
