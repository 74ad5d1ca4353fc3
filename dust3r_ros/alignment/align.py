"""Many pair predictions in, one scene out: `align(predictions) -> Alignment`.

Global alignment (DUSt3R, section 3.4): the maximum spanning tree over the pairs, chained by weighted Procrustes, then the optimum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.alignment.chain import KNOWN, MIN_KNOWN, Known, PlacedImage, place_branch
from dust3r_ros.alignment.objective import objective, world_points
from dust3r_ros.alignment.optimum import one_thread, optimum
from dust3r_ros.alignment.spanning_tree import score, spanning_forest
from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity


class AlignmentError(Dust3rError):
    """Predictions that cannot be put together."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """A scene on one scale. Entry n of every list is image `images[n]`; N images are placed."""

    images: tuple[int, ...]  # sorted
    poses: NDArray[np.float64]  # [N, 4, 4] camera to world
    focals: NDArray[np.float64]  # [N] pixels
    depths: list[torch.Tensor]  # N of [H, W] float32 along z, 0 where nothing is known
    confidences: list[torch.Tensor]  # N of [H, W] float32 >= 1
    pair_similarities: list[Similarity | None]  # s_e P_e for each prediction; None where the pair could not be fitted
    parts: tuple[tuple[int, ...], ...]  # images that hang together, the largest part first
    unplaced: tuple[int, ...]  # images that share too little with the largest part; not in the lists above
    objective: float  # over all pixels of the fitted pairs, as in DUSt3R's equation 5 with the geometric mean scale at 0.5


def place(
    predictions: Sequence[PairPrediction],
    focals: Mapping[int, float] | None = None,
    principal_points: Mapping[int, tuple[float, float]] | None = None,
    quick: bool = False,
) -> tuple[dict[int, PlacedImage], tuple[tuple[int, ...], ...]]:
    """The images of the largest part in the frame of its tree's root, and all parts, the largest first; empty without a usable pair.

    `quick`: as a start that is refined afterwards.
    """
    scores = [score(prediction) for prediction in predictions]
    branches = spanning_forest(predictions, scores) if predictions else []
    parts = [place_branch(branch, predictions, Known(focals or {}, principal_points or {}, quick), scores) for branch in branches]
    parts.sort(key=lambda part: -len(part))
    return (parts[0] if parts else {}), tuple(tuple(sorted(part)) for part in parts)


def align(
    predictions: Sequence[PairPrediction],
    focals: Mapping[int, float] | None = None,
    poses: Mapping[int, NDArray[np.float64]] | None = None,
    principal_points: Mapping[int, tuple[float, float]] | None = None,
    shared_focal: bool = False,
) -> Alignment:
    """Poses, focal lengths and depths of least objective (`objective`) from pair predictions; the largest connected part is aligned.

    From the spanning tree, by second-order steps on a few confident pixels of each image, then all depths at once (docs/alignment.md).
    `focals` (pixels), `poses` (4x4 camera to world) and `principal_points` (pixels; the image's middle otherwise) are what is known,
    by image, and come back unchanged. One known pose fixes the frame, two or more the scale too. `shared_focal`: all images whose focal
    length is not known were taken with the same one. The same input gives the same result.

    Raises AlignmentError without any usable prediction.
    """
    with one_thread():
        return _align(list(predictions), dict(focals or {}), dict(poses or {}), dict(principal_points or {}), shared_focal)


def _align(
    predictions: list[PairPrediction],
    focals: dict[int, float],
    poses: dict[int, NDArray[np.float64]],
    principal_points: dict[int, tuple[float, float]],
    shared_focal: bool,
) -> Alignment:
    if not predictions:
        raise AlignmentError("nothing to align: no pair predictions were given; estimate at least one pair first")
    placed, parts = place(predictions, focals, principal_points, quick=True)
    if len(placed) < 2:
        raise AlignmentError(
            "no pair holds together: fewer than 12 pixels of any pair have a confidence above 1; the camera must move and see texture"
        )
    images = tuple(sorted(placed))
    used = [index for index, p in enumerate(predictions) if p.i in placed and p.j in placed]
    pairs = [predictions[index] for index in used]
    solved = optimum(pairs, {image: placed[image] for image in images}, focals, poses, principal_points, shared_focal)
    similarities: list[Similarity | None] = [None] * len(predictions)
    for index, prediction, similarity in zip(used, pairs, solved.similarities, strict=True):
        if int((prediction.confidence_i > KNOWN).sum() + (prediction.confidence_j > KNOWN).sum()) >= MIN_KNOWN:
            similarities[index] = similarity
    camera_poses, camera_focals = solved.poses, solved.focals
    for at, image in enumerate(images):  # to the last digit
        camera_poses[at] = poses.get(image, camera_poses[at])
        camera_focals[at] = focals.get(image, camera_focals[at])
    points = {
        image: world_points(depth, pose, float(focal), principal_points.get(image))
        for image, depth, pose, focal in zip(images, solved.depths, camera_poses, camera_focals, strict=True)
    }
    fitted = [(predictions[index], similarity) for index, similarity in enumerate(similarities) if similarity is not None]
    return Alignment(
        images=images,
        poses=camera_poses,
        focals=camera_focals,
        depths=solved.depths,
        confidences=[placed[image].confidence for image in images],
        pair_similarities=similarities,
        parts=parts,
        unplaced=tuple(sorted({node for p in predictions for node in (p.i, p.j)} - set(images))),
        objective=objective([p for p, _ in fitted], points, [pair for _, pair in fitted]) if fitted else float("nan"),
    )
