"""Cameras on one body that goes round the room, and an estimator that, like any real one, knows nothing of pairs without overlap."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.geometry import pose_matrix
from dust3r_ros.mapping import FrameSet
from dust3r_ros.mapping.types import Frame
from dust3r_ros.simulation import SimulatedSequence, SimulatedView
from dust3r_ros.simulation.room import room
from dust3r_ros.simulation.walks import circle_pose
from support.simulated_estimator import SimulatedEstimator
from support.walk import FRAMES, once_round

MANY = 12  # frames, beyond which all of the way round are rendered
MIN_OVERLAP = 0.15  # of the second view in the first: a pair of less is noise without confidence

Pose = NDArray[np.float64]


def looking(yaw_degrees: float, x: float, y: float = 0.0, z: float = 0.0) -> Pose:
    """Camera to body [4, 4], both with optical axes: turned right by so much, at (x right, y down, z ahead) metres."""
    return pose_matrix(Rotation.from_euler("y", np.radians(yaw_degrees)).as_matrix(), (x, y, z))


FRONT = {"front": looking(0.0, 0.0)}
TWO = {**FRONT, "left": looking(-40.0, -0.25)}
APART = {**FRONT, "back": looking(180.0, 0.4, 0.0, -0.1)}  # they never see the same at once


def body_pose(frame: int) -> Pose:
    return circle_pose(frame / FRAMES, 1.6, inward=True)


@lru_cache(maxsize=200)
def _seen_from(mount: bytes, at: int) -> SimulatedView:
    own = np.frombuffer(mount).reshape(4, 4)
    return SimulatedSequence(FRAMES, 160, 120, 0, room, lambda k: body_pose(k) @ own)[at]


def rig_views(cameras: Mapping[str, Pose], frames: int) -> dict[str, list[SimulatedView]]:
    """By camera, what it sees on the way; the front one goes once round as others do, who may have rendered that already."""

    def seen(name: str, pose: Pose) -> list[SimulatedView]:
        if name == "front" and frames > MANY:
            return once_round()[:frames]
        return [_seen_from(np.ascontiguousarray(pose).tobytes(), k) for k in range(frames)]

    return {name: seen(name, pose) for name, pose in cameras.items()}


def frame_set(views: Mapping[str, list[SimulatedView]], at: int, blind: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> FrameSet:
    """Of one moment; blind cameras see grey."""
    frames = {
        name: Frame(own[at].stamp, np.full_like(own[at].image, 127) if name in blind else own[at].image, own[at].camera)
        for name, own in views.items()
        if name not in without
    }
    return FrameSet(next(iter(views.values()))[at].stamp, frames)


class RigEstimator(SimulatedEstimator):
    """Pairs whose views hardly overlap are noise without confidence."""

    def __init__(self, views: Mapping[str, list[SimulatedView]], **errors: object) -> None:
        super().__init__([view for own in views.values() for view in own], **errors)  # type: ignore[arg-type]

    def _pair(self, i: int, j: int, view_i: Tokens, view_j: Tokens) -> PairPrediction:
        found = super()._pair(i, j, view_i, view_j)
        points = found.points_j.numpy().reshape(-1, 3).astype(np.float64)
        pixels = view_i.camera.project(points)
        seen = np.isfinite(pixels).all(1) & view_i.camera.contains(np.nan_to_num(pixels, nan=-1e6)) & (points[:, 2] > 0)
        if seen.mean() >= MIN_OVERLAP:
            return found
        rng = np.random.default_rng([i, j])
        noise = torch.from_numpy(rng.normal(size=(2, *found.points_i.shape)).astype(np.float32))
        one = torch.ones_like(found.confidence_i)
        return PairPrediction(i, j, noise[0], noise[1], one, one)
