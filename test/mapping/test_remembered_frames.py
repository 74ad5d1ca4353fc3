"""Frames that are placed anew: by another camera, and by the depth that their keyframe has by then."""

from __future__ import annotations

import numpy as np
import pytest

from dust3r_ros.geometry import Camera, inverse_pose, transform_points
from dust3r_ros.mapping.tracking.remembered_frames import Remembered, RememberedFrames
from dust3r_ros.mapping.tracking.tracker import Tracks
from dust3r_ros.mapping.types import Keyframe

GIVEN, CALIBRATED = (Camera(width=320, height=240, fx=focal, fy=focal, cx=160, cy=120) for focal in (150.0, 200.0))


def keyframe_by(camera: Camera, depth: np.ndarray) -> Keyframe:
    return Keyframe(0, 0, np.eye(4), camera, camera, np.zeros((240, 320, 3), np.uint8), depth, np.full_like(depth, 9))


@pytest.fixture
def shown() -> tuple[np.ndarray, Tracks, np.ndarray]:
    """A keyframe's depth [H, W], its points in another frame, as the calibrated camera sees them, and that one's pose to it."""
    random = np.random.default_rng(0)
    depth, pose = (2 + random.random((240, 320))).astype(np.float32), np.eye(4)
    pose[0, 3] = 0.2
    own = np.rint(random.uniform((20, 20), (300, 220), (200, 2))).astype(np.float32)
    points = CALIBRATED.unproject(own) * depth[tuple(own[:, ::-1].astype(int).T)][:, None]
    return depth, Tracks(own, CALIBRATED.project(transform_points(inverse_pose(pose), points)).astype(np.float32), 1.0), pose


def test_a_frame_placed_by_the_calibrated_camera_is_not_placed_by_the_given_one_again(shown: tuple[np.ndarray, Tracks, np.ndarray]) -> None:
    depth, tracks, pose = shown
    frames, anew = RememberedFrames(), keyframe_by(CALIBRATED, depth)
    frames.add(Remembered(1, 0, tracks, GIVEN, np.zeros(3), np.zeros(3)), keyframe_by(GIVEN, 0.8 * depth), 1.0)
    assert np.allclose(frames.by_camera(CALIBRATED, 0.0, lambda _: anew)[1, 0], pose, atol=1e-3)
    assert np.allclose(frames.by_depth(0, 0.0, anew, 1.0)[1, 0], pose, atol=1e-3)


def test_a_frame_tracked_while_the_camera_was_calibrated_is_placed_by_what_its_keyframe_is_known_of_by_then(
    shown: tuple[np.ndarray, Tracks, np.ndarray],
) -> None:
    depth, tracks, pose = shown
    frames = RememberedFrames()
    frames.add(Remembered(1, 0, tracks, GIVEN, np.zeros(3), np.zeros(3)), keyframe_by(GIVEN, 0.8 * depth), 1.0)
    assert np.allclose(frames.by_depth(0, 0.0, keyframe_by(CALIBRATED, depth), 1.0)[1, 0], pose, atol=1e-3)


def test_each_frame_is_placed_anew_if_the_depth_that_it_was_placed_by_has_changed(shown: tuple[np.ndarray, Tracks, np.ndarray]) -> None:
    depth, tracks, _ = shown
    frames, now = RememberedFrames(), keyframe_by(CALIBRATED, depth)
    for stamp, share in ((1, 0.8), (2, 1.0), (3, 1.2)):
        frames.add(Remembered(stamp, 0, tracks, CALIBRATED, np.zeros(3), np.zeros(3)), keyframe_by(CALIBRATED, share * depth), 1.0)
    assert set(frames.by_depth(0, 0.0, now, 1.0)) == {(1, 0), (3, 0)}
    assert frames.by_depth(0, 0.0, now, 1.0) == {}
