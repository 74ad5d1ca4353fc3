"""The focal length of an image, from one pair or several.

Wang et al., DUSt3R, CVPR 2024, section 3.3, "Recovering intrinsics": the first view's pointmap is in its own camera's frame, so that
f = argmin sum C |(u - cx, v - cy) - f (X, Y) / Z|.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.geometry import Camera, GeometryError, focal_from_pointmap
from dust3r_ros.matching.errors import MatchingError


@dataclass(frozen=True)
class FocalEstimate:
    """A focal length (fx = fy) in pixels of the working image."""

    focal: float
    spread: float  # weighted median of |pair's focal / focal - 1|; 0 for one pair
    pairs: tuple[tuple[int, int], ...]  # those that it comes from

    def in_source(self, tokens: Tokens) -> float:
        """fx in the camera's own pixels: `source.fx` times what the pointmaps say over what the working camera said."""
        return self.focal * tokens.source.fx / tokens.camera.fx


def focal_length(
    predictions: Iterable[PairPrediction], view: int, camera: Camera | None = None, min_confidence: float = 1.0
) -> FocalEstimate | None:
    """The focal length of `view` from all pairs (view, j): each by Weiszfeld's iteration weighted by confidence, then a weighted median.

    Other pairs are passed over: in (j, view) the points are in another camera's frame. `camera`: the view's working camera, for its
    principal point (by default the image's middle). Pixels at or below `min_confidence` have no say (1: "nothing is known"); a pair's
    weight in the median is the sum of its confidences. None where no pair determines it. An estimator that was told the calibration gives
    it back. Raises MatchingError for a camera of another size.
    """
    found = []
    for prediction in predictions:
        if prediction.i != view:
            continue
        weights = torch.where(prediction.confidence_i > min_confidence, prediction.confidence_i, 0.0)
        height, width = weights.shape
        if camera is not None and (camera.width, camera.height) != (width, height):
            raise MatchingError(
                f"focal length of view {view}: its points are {width}x{height}, its camera {camera.width}x{camera.height}: "
                "give Tokens.camera, the working camera"
            )
        centre = None if camera is None else (camera.cx, camera.cy)
        try:
            focal = focal_from_pointmap(prediction.points_i, weights, centre)
        except GeometryError:  # this pair says nothing; another may
            continue
        found.append((focal, float(weights.sum()), (prediction.i, prediction.j)))
    if not found:
        return None
    focals, shares = np.array([f for f, _, _ in found]), np.array([w for _, w, _ in found])
    middle = weighted_median(focals, shares)
    return FocalEstimate(middle, weighted_median(np.abs(focals / middle - 1.0), shares), tuple(pair for _, _, pair in found))


def weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The value [N] at which half of the weights [N] is reached; the mean of two where exactly half lies on either side."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    half = total[-1] / 2
    low, high = np.searchsorted(total, half, side="left"), np.searchsorted(total, half, side="right")
    return float((values[order][low] + values[order][min(high, len(values) - 1)]) / 2)
