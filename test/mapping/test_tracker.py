"""Following points: what rotation alone moves is no parallax, and a keyframe's depth gives the next frame's pose."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dust3r_ros.geometry import Camera, reproject, rotation_angle
from dust3r_ros.mapping import Keyframe
from dust3r_ros.mapping.tracking.tracker import Tracker, Tracks, frame_pose, parallax, tracking_image
from dust3r_ros.simulation import SimulatedView, room_sequence

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)


def rotation(axis: tuple[float, float, float], angle: float) -> np.ndarray:
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def moved_tracks(rotated: np.ndarray, moved: tuple[float, float, float], camera: Camera = CAMERA) -> tuple[Tracks, np.ndarray]:
    """Points at 1 to 4 m seen before and after the camera moves; and the camera's new pose."""
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-0.4, 0.4, 200), rng.uniform(-0.3, 0.3, 200), np.ones(200)]) * rng.uniform(1, 4, (200, 1))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotated, moved
    before, after = reproject(points, camera, np.eye(4)), reproject(points, camera, pose)
    return Tracks(before.astype(np.float32), after.astype(np.float32), 1.0), pose


@pytest.mark.parametrize("lens", [CAMERA, Camera(320, 240, 200.0, 200.0, 159.5, 119.5, "equidistant", (0.02, -0.01, 0.0, 0.0))])
def test_rotation_alone_is_no_parallax(lens: Camera) -> None:
    tracks, _ = moved_tracks(rotation((0.3, 1.0, 0.2), 0.1), (0.0, 0.0, 0.0), lens)
    assert parallax(tracks, lens) < 1e-4


def test_parallax_grows_with_the_way() -> None:
    still, near, far = (parallax(moved_tracks(rotation((0, 1, 0), 0.05), (way, 0, 0))[0], CAMERA) for way in (0.0, 0.05, 0.2))
    assert still < 1e-4 < near < far
    assert far > 0.01


def test_too_few_points_tell_nothing() -> None:
    few = Tracks(np.zeros((5, 2), np.float32), np.ones((5, 2), np.float32), 0.1)
    assert parallax(few, CAMERA) == 0.0


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(frames=9, width=320, height=240, seed=2))


def test_real_pixels_give_the_frames_pose(views: list[SimulatedView]) -> None:
    first, last = views[0], views[-1]
    tracker = Tracker()
    assert tracker.start(tracking_image(first.image)) > 100
    for view in views[1:]:
        tracks = tracker.track(tracking_image(view.image))
    assert tracks.overlap > 0.7
    keyframe = Keyframe(
        0, first.stamp, np.eye(4), first.camera, first.camera, first.image, first.depth, np.full(first.depth.shape, 10, np.float32)
    )
    found = frame_pose(tracks, keyframe, last.camera, None)
    assert found is not None
    truth = np.linalg.inv(first.pose) @ last.pose
    assert np.linalg.norm(found.pose[:3, 3] - truth[:3, 3]) < 0.05 * np.linalg.norm(truth[:3, 3])
    assert found.inliers > 0.8
    unknown = Keyframe(0, 0, np.eye(4), first.camera, first.camera, first.image, first.depth * 0, np.ones(first.depth.shape, np.float32))
    assert frame_pose(tracks, unknown, last.camera, None) is None


def test_an_unrelated_image_loses_the_points(views: list[SimulatedView]) -> None:
    tracker = Tracker()
    tracker.start(tracking_image(views[0].image))
    noise = np.random.default_rng(0).integers(0, 255, views[0].image.shape).astype(np.uint8)
    assert tracker.track(tracking_image(noise)).overlap < 0.2
    assert tracker.track(tracking_image(noise[:100])).overlap == 0.0


def test_near_things_do_not_drag_far_ones_along() -> None:
    """Sideways at 160 pixels, where a window of 21 nearly always holds both: the error was 6 mrad, and the same way in every keyframe."""
    views = list(room_sequence(frames=11, width=160, height=120, seed=1))
    first, last = views[0], views[-1]
    tracker = Tracker()
    tracker.start(tracking_image(first.image))
    for view in views[1:]:
        tracks = tracker.track(tracking_image(view.image))
    keyframe = Keyframe(
        0, first.stamp, np.eye(4), first.camera, first.camera, first.image, first.depth, np.full(first.depth.shape, 10, np.float32)
    )
    found = frame_pose(tracks, keyframe, last.camera, None)
    assert found is not None
    truth = np.linalg.inv(first.pose) @ last.pose
    assert rotation_angle(found.pose[:3, :3].T @ truth[:3, :3]) < 0.003


def test_a_rolled_camera_keeps_its_points(views: list[SimulatedView]) -> None:
    """Turned by 40 degrees the keyframe's patches look different: where they say nothing, the points stay as they were followed."""
    grey = tracking_image(views[0].image)
    height, width = grey.shape
    tracker = Tracker()
    tracker.start(grey)
    for angle in range(4, 41, 4):
        turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle, 1.0)
        tracks = tracker.track(cv2.warpAffine(grey, turn, (width, height)))
    off = np.linalg.norm(tracks.keyframe @ turn[:, :2].T + turn[:, 2] - tracks.current, axis=1)
    assert len(tracks) > 100
    assert np.median(off) < 2.0
