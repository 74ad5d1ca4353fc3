"""What a two-view estimator is: images in, pointmaps for pairs of images out.

DUSt3R (Wang et al., CVPR 2024, section 3) maps two images to two pointmaps, both in the frame of the first camera, with a
confidence per pixel. Anything that does so can stand here: a network, or geometry on optical flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera


@dataclass(frozen=True, eq=False)
class PairMotion:
    """Camera j of a pair in camera i: x_i = rotation x_j + translation, with one sigma of each axis."""

    rotation: NDArray[np.float64]  # [3, 3]
    translation: NDArray[np.float64]  # [3] in the unit of the pair's points
    sigma_turn: float  # radians
    sigma_move: float  # in the points' unit


@dataclass(frozen=True)
class PairPrediction:
    """The estimate for the ordered pair (i, j) of keyframes.

    Points are in camera i's frame (OpenCV axes: x right, y down, z forward), on a scale of the pair's own. Both views have the
    size of their own working image. Confidence is at least 1; exactly 1 says "nothing is known here".
    """

    i: int
    j: int
    points_i: torch.Tensor  # [H_i, W_i, 3] float32, camera i
    points_j: torch.Tensor  # [H_j, W_j, 3] float32, camera i too
    confidence_i: torch.Tensor  # [H_i, W_i] float32, >= 1
    confidence_j: torch.Tensor  # [H_j, W_j] float32, >= 1
    descriptors_i: torch.Tensor | None = None  # [H_i, W_i, D] float32, unit length; where the estimator has them and was asked
    descriptors_j: torch.Tensor | None = None  # [H_j, W_j, D]
    descriptor_confidence_i: torch.Tensor | None = None  # [H_i, W_i] float32 > 0
    descriptor_confidence_j: torch.Tensor | None = None  # [H_j, W_j]
    motion: PairMotion | None = None  # where the estimator knows it from more than the points: from what matches what


@dataclass(frozen=True, eq=False)
class Tokens:
    """What an estimator knows of one image, computed once and kept as long as the keyframe is in the window.

    `features` belongs to the estimator alone, which may also keep in it what it finds later about this image (a cache that
    lives and dies with the keyframe). The rest is for everyone.
    """

    source: Camera  # the camera whose image came in: its own pixels, with distortion
    camera: Camera  # the pinhole camera of the working image and of every prediction of this view
    image: NDArray[np.uint8]  # [h, w, 3] RGB, the working image (undistorted, resized)
    features: Any = field(default=None, repr=False)


@runtime_checkable
class Estimator(Protocol):
    """`encode` each image once, then `estimate` pairs of them.

    One whose points are metres says so with an attribute `metric = True`, one that leaves the CPU to others with `beside_cpu = True`.
    """

    name: str

    def encode(self, image: NDArray[np.uint8], camera: Camera) -> Tokens:
        """Prepare an image of shape (H, W, 3), uint8 RGB, taken by `camera` (distorted, its own size)."""
        ...

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        """Predictions for `pairs` (ordered, keys of `views`), and for no pair with a view that is not in `views`.

        `views` is the whole window of keyframes, oldest first. An estimator that solves the window jointly may return revised
        predictions of other pairs of it too: they replace what was said before.
        """
        ...
