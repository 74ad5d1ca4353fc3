"""Along a spanning tree, pair by pair: every image's points, pose and focal length in one frame and on one scale.

A new image's pair overlaps what is already placed in one of its two views; the weighted similarity between the two sets of points
(Procrustes) carries the other view over (DUSt3R, section 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.alignment.spanning_tree import Branch
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Camera, Similarity, focal_from_pointmap, robust_procrustes, solve_pnp

FITTED_PIXELS, QUICK_PIXELS = 1500, 300  # a similarity has 7 unknowns: more pixels only cost time
THOROUGH_ROUNDS, QUICK_ROUNDS = (10, 20), (5, 0)  # for the plain norm, then with Cauchy weights; quick: a start that is refined anyway
MIN_KNOWN = 12  # pixels; fewer hold nothing together
KNOWN = 1.0 + 1e-6  # a confidence of exactly 1 says that nothing is known


@dataclass(frozen=True, eq=False)
class PlacedImage:
    """An image in the frame of its tree's root. `parent` is the prediction that placed it."""

    pose: NDArray[np.float64]  # [4, 4] camera to world, rigid
    focal: float  # pixels
    points: torch.Tensor  # [H, W, 3] world
    confidence: torch.Tensor  # [H, W] >= 1
    parent: int

    def depth(self) -> torch.Tensor:
        """[H, W] along z in the image's own camera; 0 where nothing is known or the point is behind."""
        axis, centre = torch.from_numpy(self.pose[:3, 2].astype(np.float32)), torch.from_numpy(self.pose[:3, 3].astype(np.float32))
        z = (self.points - centre) @ axis
        return torch.where((self.confidence > KNOWN) & (z > 0), z, torch.zeros(()))


@dataclass(frozen=True)
class Known:
    """What is known beforehand, by image: focal lengths and principal points in pixels; and whether a rough result will do."""

    focals: Mapping[int, float]
    principal_points: Mapping[int, tuple[float, float]]
    quick: bool = False


def place_branch(branch: Branch, predictions: Sequence[PairPrediction], known: Known, scores: Sequence[float]) -> dict[int, PlacedImage]:
    """Every image of a branch in the frame of its root, on the scale of the root's best pair. Known focal lengths stand.

    An image whose pair shares too few known pixels with what is placed is left out, and so is what hangs on it.
    """
    best = max((index for index, p in enumerate(predictions) if p.i == branch.root), key=lambda index: scores[index])
    root = _as_first(branch.root, best, Similarity.identity(), predictions, known)
    if root is None:
        return {}
    placed = {branch.root: root}
    for parent, new, index in branch.links:
        if parent not in placed:
            continue
        prediction = predictions[index]
        parent_first = prediction.i == parent
        seen, confidence = (
            (prediction.points_i, prediction.confidence_i) if parent_first else (prediction.points_j, prediction.confidence_j)
        )
        to_world = fit(seen, placed[parent].points, torch.minimum(confidence, placed[parent].confidence), known.quick)
        if to_world is None:
            continue
        if parent_first:
            image = _as_second(new, index, to_world, predictions, known, scores)
        else:
            image = _as_first(new, index, to_world, predictions, known)
        if image is not None:
            placed[new] = image
    return placed


def fit(source: torch.Tensor, target: torch.Tensor, confidence: torch.Tensor, quick: bool = False) -> Similarity | None:
    """The similarity that carries `source` (H, W, 3) onto `target`, robust, weighted by log confidence; None if too little is known.

    `quick`: from fewer pixels and in fewer rounds.
    """
    known = torch.nonzero((confidence > KNOWN).flatten()).flatten()
    if len(known) < MIN_KNOWN:
        return None
    known = known[:: max(1, len(known) // (QUICK_PIXELS if quick else FITTED_PIXELS))]
    weights = torch.log(confidence.flatten()[known]).double().numpy()
    a, b = (points.reshape(-1, 3)[known].double().numpy() for points in (source, target))
    return robust_procrustes(a, b, weights, rounds=QUICK_ROUNDS if quick else THOROUGH_ROUNDS)


def _as_first(node: int, index: int, to_world: Similarity, predictions: Sequence[PairPrediction], known: Known) -> PlacedImage | None:
    """The first image of a pair: the pair's frame is its camera's, so the similarity is its pose."""
    prediction = predictions[index]
    if int((prediction.confidence_i > KNOWN).sum()) < MIN_KNOWN:
        return None
    focal = known.focals.get(node) or _focal(prediction.points_i, prediction.confidence_i, known.principal_points.get(node))
    return PlacedImage(to_world.apply_pose(np.eye(4)), focal, apply(to_world, prediction.points_i), prediction.confidence_i, index)


def _as_second(
    node: int, index: int, to_world: Similarity, predictions: Sequence[PairPrediction], known: Known, scores: Sequence[float]
) -> PlacedImage | None:
    """The second image of a pair: its pose follows from a pair in which it is the first, or else from its points and pixels (PnP)."""
    prediction = predictions[index]
    points, confidence = apply(to_world, prediction.points_j), prediction.confidence_j
    own = [k for k, p in enumerate(predictions) if p.i == node]
    if own:
        front = predictions[max(own, key=lambda k: scores[k])]
        similarity = fit(front.points_i, points, torch.minimum(front.confidence_i, confidence), known.quick)
        if similarity is not None:
            focal = known.focals.get(node) or _focal(front.points_i, front.confidence_i, known.principal_points.get(node))
            return PlacedImage(similarity.apply_pose(np.eye(4)), focal, points, confidence, index)
    height, width = confidence.shape
    cx, cy = known.principal_points.get(node, (width / 2, height / 2))
    # Without a view of its own an unknown focal length is taken from the other camera of the pair.
    known_focal = known.focals.get(node) or known.focals.get(prediction.i)
    focal = known_focal or _focal(prediction.points_i, prediction.confidence_i, known.principal_points.get(prediction.i))
    seen = torch.nonzero(confidence > KNOWN)
    seen = seen[:: max(1, len(seen) // FITTED_PIXELS)]
    if len(seen) < MIN_KNOWN:
        return None
    rows, columns = seen[:, 0], seen[:, 1]
    camera = Camera(width, height, focal, focal, cx, cy)
    found = solve_pnp(points[rows, columns].double().numpy(), seen.flip(1).double().numpy(), camera, threshold_px=0.01 * width)
    return None if found is None else PlacedImage(found.pose, focal, points, confidence, index)


def apply(similarity: Similarity, points: torch.Tensor) -> torch.Tensor:
    """[..., 3] float32 points through a similarity."""
    linear = torch.from_numpy((similarity.scale * similarity.rotation).astype(np.float32))
    return points @ linear.T + torch.from_numpy(np.asarray(similarity.translation, np.float32))


def _focal(points: torch.Tensor, confidence: torch.Tensor, principal_point: tuple[float, float] | None) -> float:
    height, width = confidence.shape
    centre = principal_point or (width / 2, height / 2)
    return float(focal_from_pointmap(points.numpy(), weights=(confidence.numpy() - 1.0), principal_point=centre))
