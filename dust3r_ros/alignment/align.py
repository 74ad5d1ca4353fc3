"""Many pair predictions in, one scene out: `align(predictions) -> Alignment`.

This is the start of global alignment: the maximum spanning tree over the pairs, chained by weighted Procrustes (DUSt3R, section 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.alignment.chain import Known, PlacedImage, fit, place_branch
from dust3r_ros.alignment.objective import objective, world_points
from dust3r_ros.alignment.spanning_tree import spanning_forest
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
) -> tuple[dict[int, PlacedImage], tuple[tuple[int, ...], ...]]:
    """The images of the largest part in the frame of its tree's root, and all parts, the largest first; empty without a usable pair."""
    branches = spanning_forest(predictions) if predictions else []
    parts = [place_branch(branch, predictions, Known(focals or {}, principal_points or {})) for branch in branches]
    parts.sort(key=lambda part: -len(part))
    return (parts[0] if parts else {}), tuple(tuple(sorted(part)) for part in parts)


def align(
    predictions: Sequence[PairPrediction],
    focals: Mapping[int, float] | None = None,
    poses: Mapping[int, NDArray[np.float64]] | None = None,
    principal_points: Mapping[int, tuple[float, float]] | None = None,
) -> Alignment:
    """Poses, focal lengths and depths from pair predictions; the largest connected part is aligned.

    `focals` (pixels), `poses` (4x4 camera to world) and `principal_points` (pixels; the image's middle otherwise) are what is known,
    by image, and come back unchanged. One known pose fixes the frame, two or more the scale too.

    Raises AlignmentError without any usable prediction.
    """
    predictions = list(predictions)
    if not predictions:
        raise AlignmentError("nothing to align: no pair predictions were given; estimate at least one pair first")
    focals, principal_points = dict(focals or {}), dict(principal_points or {})
    placed, parts = place(predictions, focals, principal_points)
    if len(placed) < 2:
        raise AlignmentError(
            "no pair holds together: fewer than 12 pixels of any pair have a confidence above 1; the camera must move and see texture"
        )
    images = tuple(sorted(placed))
    world = _to_known_poses(placed, poses or {})
    camera_poses = np.stack([world.apply_pose(placed[image].pose) for image in images])
    for at, image in enumerate(images):
        if poses and image in poses:
            camera_poses[at] = poses[image]
    depths = [placed[image].depth() * float(world.scale) for image in images]
    points = {
        image: world_points(depth, pose, placed[image].focal, principal_points.get(image))
        for image, depth, pose in zip(images, depths, camera_poses, strict=True)
    }
    pairs = [_pair_similarity(prediction, points) for prediction in predictions]
    fitted = [(prediction, pair) for prediction, pair in zip(predictions, pairs, strict=True) if pair is not None]
    return Alignment(
        images=images,
        poses=camera_poses,
        focals=np.array([placed[image].focal for image in images]),
        depths=depths,
        confidences=[placed[image].confidence for image in images],
        pair_similarities=pairs,
        parts=parts,
        unplaced=tuple(sorted({node for p in predictions for node in (p.i, p.j)} - set(images))),
        objective=objective([p for p, _ in fitted], points, [pair for _, pair in fitted]) if fitted else float("nan"),
    )


def _pair_similarity(prediction: PairPrediction, points: Mapping[int, torch.Tensor]) -> Similarity | None:
    if prediction.i not in points or prediction.j not in points:
        return None
    seen = torch.cat([prediction.points_i.reshape(-1, 3), prediction.points_j.reshape(-1, 3)])
    confidence = torch.cat([prediction.confidence_i.flatten(), prediction.confidence_j.flatten()])
    world = torch.cat([points[prediction.i].reshape(-1, 3), points[prediction.j].reshape(-1, 3)])
    return fit(seen, world, confidence)


def _to_known_poses(placed: Mapping[int, PlacedImage], known: Mapping[int, NDArray[np.float64]]) -> Similarity:
    """The similarity from the tree's frame to that of the known poses: mean rotation, ratio of spreads, mean position."""
    shared = [image for image in placed if image in known]
    if not shared:
        return Similarity.identity()
    estimated, given = np.stack([placed[image].pose for image in shared]), np.stack([known[image] for image in shared])
    return pose_similarity(estimated, given)


def pose_similarity(source: NDArray[np.float64], target: NDArray[np.float64], scale: float | None = None) -> Similarity:
    """The similarity that carries camera poses (N, 4, 4) onto others: mean rotation, ratio of spreads or given scale, mean position."""
    u, _, vt = np.linalg.svd(np.einsum("nij,nkj->ik", target[:, :3, :3], source[:, :3, :3]))
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    source_mean, target_mean = source[:, :3, 3].mean(0), target[:, :3, 3].mean(0)
    if scale is None:
        spread = float(np.linalg.norm(source[:, :3, 3] - source_mean))
        scale = float(np.linalg.norm(target[:, :3, 3] - target_mean)) / spread if spread > 1e-12 else 1.0
    scale = scale if scale > 1e-12 else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)
