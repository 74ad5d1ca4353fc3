"""An estimator over pairs whose truth is known: what it says of each, measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dust3r_ros.demo.inputs import TrueView
from dust3r_ros.estimators import Estimator, PairPrediction, Tokens
from dust3r_ros.geometry import Camera, inverse_pose, transform_points
from dust3r_ros.matching import focal_length, relative_pose
from dust3r_ros.training.evaluation.measures import (
    Array,
    ConfidenceScore,
    DepthScore,
    Mask,
    PoseScore,
    confidence_score,
    depth_score,
    normalised_errors,
    pose_score,
)
from dust3r_ros.training.evaluation.truth import TruePair, WorkingTruth, working_truth

ASSUMED_FOV = 60.0  # degrees: the Mapper's default where nothing is known of the camera
REST = 0.1  # seconds


@dataclass(frozen=True)
class PairScore:
    """One directed pair. None: the truth does not say, or there is nothing to measure."""

    points: float | None  # mean normalised distance over both views
    depth: DepthScore | None  # of the first view
    pose: PoseScore
    focal: float | None  # |estimate / truth - 1| of the first view; None: not determined
    confidence: ConfidenceScore | None  # over both views
    coverage: float | None  # share of the known pixels of both views that have an estimate
    seconds: float  # to encode both images and estimate both directions


@dataclass(frozen=True, eq=False)
class Side:
    """A view of a pair as the estimator saw it, and what is true of it."""

    view: TrueView
    tokens: Tokens
    truth: WorkingTruth


def pair_scores(estimator: Estimator, pairs: Iterable[TruePair], calibrated: bool = False) -> Iterator[PairScore]:
    """Two scores a pair, one for each direction, as the pairs come.

    `calibrated`: the estimator, and the pose that is made of what it says, are told the true camera; else one of 60 degrees across, as the
    Mapper assumes one, and the true intrinsics are used for the truth alone. The first pair is estimated twice, and timed the second time.
    Before each there is a rest: threads of the scores' linear algebra keep the cores busy for a while after they are done.
    """
    is_first = True
    for pair in pairs:
        if is_first:
            _estimated(estimator, pair, calibrated)
            is_first = False
        time.sleep(REST)
        start = time.perf_counter()
        tokens, found = _estimated(estimator, pair, calibrated)
        seconds = time.perf_counter() - start
        sides = [Side(view, seen, working_truth(view, seen)) for view, seen in zip((pair.first, pair.second), tokens, strict=True)]
        for i, j in ((0, 1), (1, 0)):
            yield _score(sides[i], sides[j], found[i, j], found[j, i], calibrated, seconds)


def _estimated(
    estimator: Estimator, pair: TruePair, calibrated: bool
) -> tuple[tuple[Tokens, Tokens], dict[tuple[int, int], PairPrediction]]:
    first, second = (
        estimator.encode(view.image, view.camera if calibrated else _assumed(view.camera)) for view in (pair.first, pair.second)
    )
    predictions = estimator.estimate({0: first, 1: second}, [(0, 1), (1, 0)])
    return (first, second), {(prediction.i, prediction.j): prediction for prediction in predictions}  # a revised one replaces the earlier


def _assumed(camera: Camera) -> Camera:
    return Camera.from_fov(camera.width, camera.height, ASSUMED_FOV)


def _score(first: Side, second: Side, forward: PairPrediction, backward: PairPrediction, calibrated: bool, seconds: float) -> PairScore:
    to_first = inverse_pose(first.view.pose) @ second.view.pose
    own, other = _given(forward, first=True), _given(forward, first=False)
    known = np.concatenate([first.truth.known.ravel(), second.truth.known.ravel()])
    truth = np.concatenate([first.truth.points.reshape(-1, 3), transform_points(to_first, second.truth.points.reshape(-1, 3))])[known]
    points = np.concatenate([own[0].reshape(-1, 3), other[0].reshape(-1, 3)])[known]
    estimated = np.concatenate([own[1].ravel(), other[1].ravel()])[known]
    confidence = np.concatenate([own[2].ravel(), other[2].ravel()])[known]

    errors = normalised_errors(points, truth, estimated) if known.any() else None
    here = first.truth.known
    cameras = (first.tokens.camera, second.tokens.camera) if calibrated else (None, None)
    distance = float(np.median(np.linalg.norm(truth, axis=1))) if known.any() else 0.0
    return PairScore(
        points=None if errors is None else float(errors.mean()),
        depth=depth_score(own[0][here][:, 2], first.truth.points[here][:, 2], own[1][here]) if here.any() else None,
        pose=pose_score(_pose(forward, backward, cameras[1]), to_first, distance),
        focal=_focal_error(forward, cameras[0], first.truth.focal),
        confidence=None if errors is None else confidence_score(confidence[estimated], errors[estimated]),
        coverage=float(estimated.mean()) if known.any() else None,
        seconds=seconds,
    )


def _given(prediction: PairPrediction, first: bool) -> tuple[Array, Mask, Array]:
    """Points [h, w, 3], where there is an estimate at all, and confidence [h, w], of one view."""
    points, confidence = (prediction.points_i, prediction.confidence_i) if first else (prediction.points_j, prediction.confidence_j)
    xyz, sure = points.numpy().astype(np.float64), confidence.numpy().astype(np.float64)
    estimated = np.isfinite(xyz).all(-1) & np.isfinite(sure) & (sure > 1)
    return np.where(estimated[..., None], xyz, 0.0), estimated, np.where(estimated, sure, 1.0)


def _pose(forward: PairPrediction, backward: PairPrediction, known: Camera | None) -> Array | None:
    """Camera j to camera i by PnP on view j's points and pixels.

    Without a `known` camera j, its focal length is that of its own pointmap in the pair (j, i), its principal point the image's middle.
    """
    camera = known
    if camera is None:
        found = focal_length([backward], backward.i)
        if found is None:
            return None
        height, width = forward.confidence_j.shape
        camera = Camera(width, height, found.focal, found.focal, (width - 1) / 2, (height - 1) / 2)
    pose = relative_pose(forward, None, camera)
    return None if pose is None else pose.pose


def _focal_error(forward: PairPrediction, known: Camera | None, truth: float) -> float | None:
    found = focal_length([forward], forward.i, known)
    return None if found is None else abs(found.focal / truth - 1)
