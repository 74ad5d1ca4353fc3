"""`FlowEstimator`: pair predictions from optical flow and geometry alone, no weights needed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.estimators.calibration import Calibration
from dust3r_ros.estimators.errors import EstimatorError
from dust3r_ros.estimators.flow.dense import DepthMap
from dust3r_ros.estimators.flow.self_calibration import calibrate
from dust3r_ros.estimators.flow.view import View, view_of
from dust3r_ros.estimators.flow.window import WindowSolution, solve_window
from dust3r_ros.estimators.protocol import PairMotion, PairPrediction, Tokens
from dust3r_ros.geometry import Camera, Rectification, working_camera

log = logging.getLogger(__name__)

# Of a pair's motion: radians, and a share of the depth. A choice: the bundle adjustment's covariance is not asked.
TURN_SIGMA = 0.002
MOVE_SIGMA = 0.005


class FlowEstimator:
    """Optical flow, bundle adjustment over the window, triangulation.

    The scale of each call is its own, but it goes on from call to call as long as the windows overlap.
    """

    name = "flow"
    can_calibrate = True

    def __init__(self, size: int = 320) -> None:
        """`size`: longer side of the working image in pixels."""
        if size < 64:
            raise EstimatorError(f"working image size {size} is too small for optical flow: take at least 64")
        self.size = size
        self._next_chain = 0
        self._said_assumed = False
        self._rectification: Rectification | None = None

    def encode(self, image: NDArray[np.uint8], camera: Camera) -> Tokens:
        """Undistort and resize an image [H, W, 3] uint8 RGB to the working image and measure its texture.

        Raises EstimatorError if the image is not of the camera's size or kind.
        """
        if image.dtype != np.uint8 or image.shape != (camera.height, camera.width, 3):
            raise EstimatorError(
                f"image of shape {image.shape} and type {image.dtype} does not fit its camera of {camera.width}x{camera.height}: "
                "give uint8 RGB of that size"
            )
        if camera.assumed and not self._said_assumed:
            self._said_assumed = True
            log.warning(
                "no calibration: assuming a horizontal field of view of %.0f degrees (focal length %.0f pixels at %d wide); "
                "depth and poses are as good as this guess until the first keyframes have calibrated the camera: "
                "publish camera_info or set estimator.assumed_fov",
                np.degrees(2 * np.arctan2(camera.width / 2, camera.fx)),
                camera.fx,
                camera.width,
            )
        if self._rectification is None or self._rectification.source != camera:
            self._rectification = Rectification(camera, working_camera(camera, self.size))
        working = self._rectification.image(image)
        target = self._rectification.target
        return Tokens(camera, target, working, view_of(working, target))

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        """Solve the whole window jointly; predictions for `pairs`, then revised ones for the window's consecutive pairs, both ways.

        Pairs whose views do not see each other, or whose camera only turned, have confidence 1 everywhere. Raises EstimatorError for a pair
        that is not in `views`.
        """
        keys = list(views)
        position = {key: index for index, key in enumerate(keys)}
        for i, j in pairs:
            if i not in position or j not in position or i == j:
                raise EstimatorError(f"pair ({i}, {j}) is not two different views of the window {keys}")
        if not keys:
            return []
        found = [_view(views[key]) for key in keys]
        edges = _edges(found, [(position[i], position[j]) for i, j in pairs])
        solution = solve_window(found, edges, self._next_chain)
        self._next_chain += len(keys)
        _forget(found)
        consecutive = [pair for i, j in pairwise(keys) for pair in ((i, j), (j, i))]
        wanted = dict.fromkeys([*pairs, *consecutive])
        return _predictions(found, solution, position, list(wanted))

    def calibrate(self, views: Sequence[Tokens], turns: Sequence[NDArray[np.float64]], is_measured: bool) -> Calibration | None:
        """Focal length, radial distortion and readout of the views' camera, by bundle adjustment over them; see `SelfCalibrating`."""
        return calibrate(views, [_view(tokens) for tokens in views], turns, is_measured) if len(views) > 1 else None


def _view(tokens: Tokens) -> View:
    if not isinstance(tokens.features, View):
        raise EstimatorError(f"tokens of another estimator ({type(tokens.features).__name__}): encode the image with the flow estimator")
    return tokens.features


def _edges(views: Sequence[View], asked: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Unordered pairs of positions to solve over: those asked for, those known from before, and consecutive ones."""
    edges = {(min(pair), max(pair)) for pair in asked}
    edges |= {(index, index + 1) for index in range(len(views) - 1)}
    for a, first in enumerate(views):
        edges |= {(a, b) for b in range(a + 1, len(views)) if views[b].digest in first.flows}
    return sorted(edges)


def _forget(views: Sequence[View]) -> None:
    """Drop flows to views that have left the window."""
    alive = {view.digest for view in views}
    for view in views:
        for digest in [digest for digest in view.flows if digest not in alive]:
            del view.flows[digest]


def _predictions(
    views: Sequence[View], solution: WindowSolution, position: Mapping[int, int], pairs: Sequence[tuple[int, int]]
) -> list[PairPrediction]:
    points = [depth.depth[..., None] * view.rays for view, depth in zip(views, solution.depth, strict=True)]
    tensors = [torch.from_numpy(p) for p in points]
    confidences = [torch.from_numpy(depth.confidence) for depth in solution.depth]
    predictions = []
    for i, j in pairs:
        a, b = position[i], position[j]
        relative = solution.poses[a] @ np.linalg.inv(solution.poses[b])
        moved = cv2.transform(points[b], relative[:3].astype(np.float32))
        if solution.component[a] == solution.component[b]:
            sure = (confidences[a], confidences[b])
            motion = _motion(relative, solution.depth[a]) if (a, b) in solution.matched else None
        else:
            sure, motion = (torch.ones_like(confidences[a]), torch.ones_like(confidences[b])), None
        predictions.append(PairPrediction(i, j, tensors[a], torch.from_numpy(moved), *sure, motion=motion))
    return predictions


def _motion(pose: NDArray[np.float64], depth: DepthMap) -> PairMotion | None:
    """Camera j in camera i as the bundle adjustment has it; None where nothing is known of view i."""
    known = depth.depth[depth.confidence > 1]
    if not known.size:
        return None
    return PairMotion(pose[:3, :3].copy(), pose[:3, 3].copy(), TURN_SIGMA, MOVE_SIGMA * float(np.median(known)))
