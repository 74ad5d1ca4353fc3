"""The pixels of an image that may be matched, as rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.matching.errors import MatchingError
from dust3r_ros.matching.matches import Matches


@dataclass(frozen=True, eq=False)
class Pixels:
    """The usable ones of an image of `width` columns, in row-major order."""

    values: torch.Tensor  # [M, D] what is compared: points or descriptors
    index: torch.Tensor  # [M] int64, row * width + column
    confidence: torch.Tensor  # [M]
    width: int

    @classmethod
    def of(cls, values: torch.Tensor, confidence: torch.Tensor | None, above: float, name: str) -> Pixels:
        """From an image [H, W, D] and its confidence [H, W]: those that are finite and whose confidence is more than `above`.

        Without a confidence all that are finite, each with 1. Raises MatchingError for other shapes; `name` says of what.
        """
        if values.ndim != 3:
            raise MatchingError(f"{name} of shape {tuple(values.shape)}: give (H, W, D)")
        usable = torch.isfinite(values).all(-1)
        if confidence is None:
            confidence = torch.ones_like(usable, dtype=torch.float32)
        elif confidence.shape != usable.shape:
            raise MatchingError(f"{name} of {tuple(usable.shape)} pixels with confidence of {tuple(confidence.shape)}: give one a pixel")
        else:
            usable = usable & (confidence > above)
        index = torch.nonzero(usable.flatten())[:, 0]
        return cls(values.flatten(0, 1)[index], index, confidence.flatten()[index], values.shape[1])

    def __len__(self) -> int:
        return len(self.index)

    def on_grid(self, step: int) -> torch.Tensor:
        """[K] int64: which of these rows lie on every `step`-th row and column of the image, the first half a step from the border."""
        if step < 1:
            raise MatchingError(f"a grid of every {step}th pixel: give a step of at least 1")
        row, column = self.index // self.width, self.index % self.width
        return torch.nonzero((row % step == step // 2) & (column % step == step // 2))[:, 0]


def matches_of(first: Pixels, second: Pixels, rows_1: torch.Tensor, rows_2: torch.Tensor) -> Matches:
    """The matches between `rows_1` [N] of the first and `rows_2` [N] of the second."""
    both = torch.sqrt(first.confidence[rows_1].double() * second.confidence[rows_2].double())
    return Matches(_uv(first, rows_1), _uv(second, rows_2), both.cpu().numpy())


def _uv(pixels: Pixels, rows: torch.Tensor) -> NDArray[np.float64]:
    index = pixels.index[rows]
    return np.asarray(torch.stack([index % pixels.width, index // pixels.width], dim=-1).double().cpu().numpy())
