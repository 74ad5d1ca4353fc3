"""Focal length of a camera that nobody calibrated, from what a network says of pairs of its first keyframes.

A network that matches adjusts the focal lengths of each pair by itself; a pair leaves them open by some 5 to 20 %, and the pairs of one
camera disagree. Told one focal length for all, every later pair is the better for it, and the map agrees with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dust3r_ros.estimators.calibration import Calibration, shift
from dust3r_ros.estimators.protocol import PairPrediction, Tokens
from dust3r_ros.geometry import GeometryError, focal_from_pointmap

SPAN = 3  # keyframes apart that two views may be
ALIKE = 0.07  # relative, one sigma: what all pairs of a camera may be wrong by together, on generated pairs
MAD_TO_SIGMA = 1.4826
LEAST_PAIRS = 6

Estimate = Callable[[Mapping[int, Tokens], Sequence[tuple[int, int]]], list[PairPrediction]]


def calibrate(views: Sequence[Tokens], estimate: Estimate) -> Calibration | None:
    """From views of one camera; `estimate`: pairs, by a network that is not told any focal length. None where that says too little."""
    source = views[0].source
    if any(view.source != source for view in views) or not source.is_pinhole:
        return None
    pairs = [(i, j) for i in range(len(views)) for j in range(len(views)) if 0 < abs(i - j) <= SPAN]
    found = [focal for prediction in estimate(dict(enumerate(views)), pairs) if (focal := _focal(prediction)) is not None]
    if len(found) < LEAST_PAIRS:
        return None
    logs = np.log(found)
    middle = float(np.median(logs))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(logs - middle)))
    sigma = float(np.hypot(ALIKE, spread / np.sqrt(len(views))))
    longer = float(np.exp(middle)) / views[0].camera.fx
    camera = replace(source, fx=source.fx * longer, fy=source.fy * longer, assumed=False)
    return Calibration(camera, sigma, np.inf, shift(source, camera, views[0].camera), 0.0, np.inf)


def _focal(prediction: PairPrediction) -> float | None:
    """In pixels of the working image, of the pair's first view."""
    try:
        return focal_from_pointmap(prediction.points_i, prediction.confidence_i - 1.0)
    except GeometryError:
        return None
