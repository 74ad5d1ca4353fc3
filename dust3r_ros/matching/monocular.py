"""Depth from one picture, by pairing it with itself.

Wang et al., DUSt3R, CVPR 2024, section 4, "Monocular depth": F(I, I), whose first pointmap's z is the depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.estimators import Estimator
from dust3r_ros.geometry import Camera, Rectification
from dust3r_ros.matching.errors import MatchingError
from dust3r_ros.matching.focal import focal_length


@dataclass(frozen=True, eq=False)
class MonocularDepth:
    """Of the camera's own size and pixels, lens and all."""

    depth: NDArray[np.float32]  # [H, W] along z, on the estimator's scale; 0: not known
    confidence: NDArray[np.float32]  # [H, W] >= 1; 1: nothing is known
    focal: float | None  # fx in the camera's own pixels as the pointmap has it; None: not determined


def monocular_depth(estimator: Estimator, image: NDArray[np.uint8], camera: Camera) -> MonocularDepth:
    """Depth of an image [H, W, 3] uint8 RGB taken by `camera`: encoded once, estimated as a pair of itself.

    For an estimator that has learnt what scenes look like. One that needs parallax knows nothing of a single picture, says so by confidence
    1 everywhere, and is refused with a MatchingError; so is a picture in which the estimator knows nothing. The estimator's own errors pass
    through.
    """
    tokens = estimator.encode(image, camera)
    found = [p for p in estimator.estimate({0: tokens, 1: tokens}, [(0, 1)]) if (p.i, p.j) == (0, 1)]
    known = torch.zeros(0) if not found else (found[0].confidence_i > 1) & (found[0].points_i[..., 2] > 0)
    if not known.any():
        raise MatchingError(
            f"depth of one image: estimator '{estimator.name}' knows nothing of a picture paired with itself (confidence 1 everywhere): "
            "use a network, or give it two views with parallax"
        )
    prediction = found[0]
    z = torch.where(known, prediction.points_i[..., 2], 0.0).float().cpu().numpy()
    sure = torch.where(known, prediction.confidence_i, 1.0).float().cpu().numpy()
    to_source = Rectification(tokens.source, tokens.camera).to_source
    focal = focal_length([prediction], 0, tokens.camera)
    return MonocularDepth(
        np.asarray(to_source(z), np.float32),
        np.asarray(to_source(sure, fill=1.0), np.float32),
        None if focal is None else focal.in_source(tokens),
    )
