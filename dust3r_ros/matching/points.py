"""Matches from pointmaps: pixels whose points are each other's nearest in space.

Wang et al., DUSt3R, CVPR 2024, section 3.3, "Point matching": M = {(i, j) | i = NN_1,2(j) and j = NN_2,1(i)}.
"""

from __future__ import annotations

import torch

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.kernels import nearest_3d
from dust3r_ros.matching.matches import Matches
from dust3r_ros.matching.pixels import Pixels, matches_of

MAX_DISTANCE = 0.02  # between the two points of a match, as a share of their distance from the camera


def match_points(
    prediction: PairPrediction, min_confidence: float = 1.0, step: int = 1, max_distance: float | None = MAX_DISTANCE
) -> Matches:
    """Reciprocal nearest neighbours between the points of view i (first) and those of view j (second), both in camera i's frame.

    Pixels count whose confidence is above `min_confidence` (1 says "nothing is known"). `step`: only every so many rows and columns of
    view i are matched, still against all of view j and back against all of view i, so what is found is a subset of step 1's.
    `max_distance` leaves out matches whose points lie further apart, as a share of the first one's distance from camera i (None: none):
    where the views do not overlap, points are still each other's nearest. No matches where nothing is known. Raises MatchingError for
    pointmaps and confidences that do not fit.
    """
    first = Pixels.of(prediction.points_i, prediction.confidence_i, min_confidence, f"points of view {prediction.i}")
    second = Pixels.of(prediction.points_j, prediction.confidence_j, min_confidence, f"points of view {prediction.j}")
    rows_1 = first.on_grid(step)
    if not (len(rows_1) and len(second)):
        return matches_of(first, second, rows_1[:0], rows_1[:0])
    rows_2 = nearest_3d(first.values[rows_1], second.values)
    mutual = nearest_3d(second.values[rows_2], first.values) == rows_1
    if max_distance is not None:
        apart = torch.linalg.norm(first.values[rows_1] - second.values[rows_2], dim=-1)
        mutual &= apart <= max_distance * torch.linalg.norm(first.values[rows_1], dim=-1)
    return matches_of(first, second, rows_1[mutual], rows_2[mutual])
