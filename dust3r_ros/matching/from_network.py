"""A network's own descriptors (MASt3R) into the searches: of one pair at the network's size, or of large images window by window."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.estimators.two_view import NetworkEstimator
from dust3r_ros.geometry import Camera
from dust3r_ros.matching.descriptors import STEP, match_descriptors_fast
from dust3r_ros.matching.errors import MatchingError
from dust3r_ros.matching.matches import Matches
from dust3r_ros.matching.windows import Describe, Window

WINDOW_FOV = 60.0  # degrees; a window's camera only carries pixels to and fro, whatever its focal length


def match_prediction(prediction: PairPrediction, min_confidence: float = 0.0, step: int = STEP) -> Matches:
    """Matches of a pair that was estimated with `descriptors=True`, in the pixels of the working images.

    Leroy et al., MASt3R, ECCV 2024, section 3; arguments as in `match_descriptors_fast`. Raises MatchingError for a pair without them.
    """
    if prediction.descriptors_i is None or prediction.descriptors_j is None:
        raise MatchingError(
            f"pair ({prediction.i}, {prediction.j}) has no descriptors: estimate it with descriptors=True, by a network that has them"
        )
    return match_descriptors_fast(
        prediction.descriptors_i,
        prediction.descriptors_j,
        prediction.descriptor_confidence_i,
        prediction.descriptor_confidence_j,
        min_confidence,
        step,
    )


def describe_by_network(estimator: NetworkEstimator, image_1: NDArray[np.uint8], image_2: NDArray[np.uint8]) -> Describe:
    """What `match_coarse_to_fine` asks for: descriptors of two windows of these images [H, W, 3] uint8 RGB, by the network on both cuts.

    Windows that the network takes as they are (its own size, whole patches) lose nothing; others are resized, and the descriptors come back
    to the windows' pixels by the nearest one, zeros where the cut to whole patches left nothing.
    """

    def describe(first: Window, second: Window) -> tuple[torch.Tensor, torch.Tensor]:
        cameras = [Camera.from_fov(window.width, window.height, WINDOW_FOV) for window in (first, second)]
        cuts = [
            np.ascontiguousarray(image[window.y : window.y + window.height, window.x : window.x + window.width])
            for image, window in ((image_1, first), (image_2, second))
        ]
        views = {key: estimator.encode(cut, camera) for key, (cut, camera) in enumerate(zip(cuts, cameras, strict=True))}
        (prediction,) = estimator.estimate(views, [(0, 1)], descriptors=True)
        assert prediction.descriptors_i is not None
        assert prediction.descriptors_j is not None
        return _in_window(prediction.descriptors_i, views[0]), _in_window(prediction.descriptors_j, views[1])

    return describe


def _in_window(descriptors: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """[h, w, D] of the working image to [H, W, D] of the window."""
    working, window = tokens.camera, tokens.source
    pixels = working.project(window.unproject(window.pixel_grid()))
    inside = torch.from_numpy(working.contains(pixels))
    columns, rows = np.rint(pixels).astype(np.int64).clip(0, (working.width - 1, working.height - 1)).transpose(2, 0, 1)
    found = descriptors[torch.from_numpy(rows), torch.from_numpy(columns)]
    return torch.where(inside.unsqueeze(-1), found, torch.zeros(()))
