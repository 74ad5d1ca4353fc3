"""Where camera j stands in camera i's frame, found in two ways that share no mathematics, and how well they agree.

Wang et al., DUSt3R, CVPR 2024, section 3.3, "Relative pose estimation": (a) Procrustes between the pointmaps of the pair (i, j) and those
of (j, i), which show the same pixels in two frames; (b) PnP with RANSAC from the points of view j in camera i's frame and their pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Camera, Similarity, pose_matrix, robust_procrustes, rotation_angle, solve_pnp
from dust3r_ros.matching.errors import MatchingError

Array = NDArray[np.float64]

MAX_POINTS = 5000  # each method takes at most that many, evenly over the images
MAX_RESIDUAL = 0.05  # of a point's distance: within it Procrustes' two points are one
PNP_THRESHOLD = 0.006  # of the image's longer side, in pixels; at least 1
MIN_INLIERS = 0.3  # below this share of agreeing points a way is not believed
MIN_BASELINE = 0.005  # of the points' median distance: below it a translation has no direction

Way = Literal["pnp", "procrustes"]


@dataclass(frozen=True, eq=False)
class RelativePose:
    """Camera j to camera i. Translations are in units of the pair (i, j)'s pointmaps, whose scale is the pair's own."""

    pose: Array  # [4, 4] of the chosen way
    chosen: Way  # "pnp" where it is believed: it needs one pair and suffers least from bad points
    inliers: float  # share of the chosen way's points that agree with it, 0..1
    pnp: Array | None  # [4, 4] None: undetermined
    procrustes: Array | None  # [4, 4] None: undetermined, or no pair (j, i) given
    scale_ratio: float | None  # units of (i, j) to one of (j, i), by Procrustes: what brings both pairs to one scale
    rotation_degrees: float | None  # angle between the two ways' rotations; None: one of them is missing
    translation_degrees: float | None  # angle between their translations; None also where the camera hardly moved


def relative_pose(forward: PairPrediction, backward: PairPrediction | None, camera_j: Camera) -> RelativePose | None:
    """The pose of camera j in camera i's frame from the predictions of (i, j) and, for Procrustes, (j, i).

    `camera_j`: the working camera of view j (`Tokens.camera`); any pinhole of its image's size. Pixels of confidence 1 have no say, the
    others by their confidence (Procrustes) or alike (PnP, whose RANSAC drops bad ones). PnP is chosen where at least 30 % of its points
    agree, else Procrustes under the same condition. None where neither is determined: too few known points, all on a line, no agreement.
    Raises MatchingError for predictions that are not of the same two views and for a camera of another size.
    """
    _check(forward, backward, camera_j)
    by_pnp = _by_pnp(forward, camera_j)
    by_procrustes = None if backward is None else _by_procrustes(forward, backward)
    chosen: Way = "pnp" if by_pnp is not None and by_pnp[1] >= MIN_INLIERS else "procrustes"
    pose, share = (by_pnp if chosen == "pnp" else _pose_of(by_procrustes)) or (None, 0.0)
    if pose is None or share < MIN_INLIERS:
        return None
    pnp = None if by_pnp is None else by_pnp[0]
    procrustes = None if by_procrustes is None else pose_matrix(by_procrustes[0].rotation, by_procrustes[0].translation)
    ratio = None if by_procrustes is None else by_procrustes[0].scale
    turned, moved = (None, None) if pnp is None or procrustes is None else pose_difference(pnp, procrustes, _distance(forward))
    return RelativePose(pose, chosen, share, pnp, procrustes, ratio, turned, moved)


def pose_difference(first: Array, second: Array, distance: float = 0.0) -> tuple[float, float | None]:
    """Angles in degrees between two poses' rotations and between their translations' directions.

    The second is None where either translation is shorter than 0.5 % of `distance`, the scene's: it has no direction worth the name.
    """
    turned = float(np.degrees(rotation_angle(first[:3, :3].T @ second[:3, :3])))
    a, b = first[:3, 3], second[:3, 3]
    if min(np.linalg.norm(a), np.linalg.norm(b)) <= MIN_BASELINE * distance:
        return turned, None
    return turned, float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def _by_pnp(forward: PairPrediction, camera: Camera) -> tuple[Array, float] | None:
    chosen = _spread((forward.confidence_j > 1) & torch.isfinite(forward.points_j).all(-1))
    points = _rows(forward.points_j, chosen)
    pixels = np.stack([chosen % camera.width, chosen // camera.width], axis=-1)
    found = solve_pnp(points, pixels, camera, max(1.0, PNP_THRESHOLD * max(camera.width, camera.height)))
    return None if found is None else (found.pose, float(found.inliers.mean()))


def _by_procrustes(forward: PairPrediction, backward: PairPrediction) -> tuple[Similarity, float] | None:
    """Camera j's frame on the scale of (j, i) to camera i's on that of (i, j), and the share of points that it brings together."""
    in_i, in_j, weights = [], [], []
    for own, other, sure_own, sure_other in (
        (forward.points_i, backward.points_j, forward.confidence_i, backward.confidence_j),
        (forward.points_j, backward.points_i, forward.confidence_j, backward.confidence_i),
    ):
        known = (sure_own > 1) & (sure_other > 1) & torch.isfinite(own).all(-1) & torch.isfinite(other).all(-1)
        chosen = _spread(known)
        in_i.append(_rows(own, chosen))
        in_j.append(_rows(other, chosen))
        weights.append(np.sqrt(_rows(sure_own[..., None], chosen)[:, 0] * _rows(sure_other[..., None], chosen)[:, 0]))
    target, source = np.concatenate(in_i), np.concatenate(in_j)
    found = robust_procrustes(source, target, np.concatenate(weights))
    if found is None:
        return None
    # Measured from camera j, so that a point counts alike whichever of the two cameras is the first.
    apart = np.linalg.norm(found.inverse().apply(target) - source, axis=1)
    return found, float(np.mean(apart <= MAX_RESIDUAL * np.linalg.norm(source, axis=1)))


def _pose_of(found: tuple[Similarity, float] | None) -> tuple[Array, float] | None:
    return None if found is None else (pose_matrix(found[0].rotation, found[0].translation), found[1])


def _distance(forward: PairPrediction) -> float:
    """Median distance of view j's known points from camera i; 0 where there are none."""
    known = forward.points_j[(forward.confidence_j > 1) & torch.isfinite(forward.points_j).all(-1)]
    return float(torch.linalg.norm(known, dim=-1).median()) if len(known) else 0.0


def _spread(known: torch.Tensor) -> NDArray[np.int64]:
    """At most MAX_POINTS of the true pixels of [H, W], evenly, as row-major indices."""
    index = np.flatnonzero(known.detach().cpu().numpy())
    return index[np.linspace(0, len(index) - 1, min(len(index), MAX_POINTS)).astype(np.int64)] if len(index) else index


def _rows(values: torch.Tensor, index: NDArray[np.int64]) -> Array:
    return np.asarray(values.detach().flatten(0, 1).cpu().numpy()[index], np.float64)


def _check(forward: PairPrediction, backward: PairPrediction | None, camera_j: Camera) -> None:
    height, width = forward.confidence_j.shape
    if (camera_j.width, camera_j.height) != (width, height):
        raise MatchingError(
            f"relative pose of pair ({forward.i}, {forward.j}): view {forward.j} is {width}x{height}, its camera "
            f"{camera_j.width}x{camera_j.height}: give Tokens.camera, the working camera of view {forward.j}"
        )
    if backward is None:
        return
    if (backward.i, backward.j) != (forward.j, forward.i):
        raise MatchingError(
            f"relative pose from pairs ({forward.i}, {forward.j}) and ({backward.i}, {backward.j}): give ({forward.j}, {forward.i}) second"
        )
    shapes = (forward.confidence_i.shape, forward.confidence_j.shape), (backward.confidence_j.shape, backward.confidence_i.shape)
    if shapes[0] != shapes[1]:
        raise MatchingError(
            f"relative pose of pair ({forward.i}, {forward.j}): views of {[tuple(s) for s in shapes[0]]} one way and "
            f"{[tuple(s) for s in shapes[1]]} the other: estimate both ways from the same tokens"
        )
