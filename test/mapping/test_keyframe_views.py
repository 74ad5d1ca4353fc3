"""What a keyframe shows, how it is remembered, and how many are."""

import numpy as np
import pytest

from dust3r_ros.geometry import Camera, working_camera
from dust3r_ros.mapping import Keyframe, depth_image, keyframe_cloud
from dust3r_ros.mapping.keyframes.keyframe_store import KeyframeStore
from dust3r_ros.mapping.points.keyframe_views import compact
from dust3r_ros.mapping.tracking.frame_trajectory import FrameTrajectory

SOURCE = Camera(640, 480, 500.0, 510.0, 310.0, 250.0, "plumb_bob", (-0.2, 0.05, 0.001, 0.0, 0.0))


def plane_keyframe(index: int = 0, size: int = 320) -> Keyframe:
    """A keyframe that looks at the tilted plane z = 2 + x / 2 (camera frame)."""
    camera = working_camera(SOURCE, size)
    depth = 2.0 / (1.0 - camera.rays()[..., 0] / 2.0)
    pose = np.eye(4)
    pose[:3, 3] = (index, 2.0, 3.0)
    image = np.random.default_rng(index).integers(0, 256, (camera.height, camera.width, 3)).astype(np.uint8)
    return Keyframe(index, index, pose, SOURCE, camera, image, depth.astype(np.float32), np.full(depth.shape, 5.0, np.float32))


def test_depth_comes_out_in_the_cameras_own_pixels_through_its_lens() -> None:
    depth, confidence = depth_image(plane_keyframe())
    assert depth.shape == confidence.shape == (480, 640)
    assert depth.dtype == confidence.dtype == np.float32
    truth = 2.0 / (1.0 - SOURCE.rays()[..., 0] / 2.0)
    seen = depth > 0
    assert seen.mean() > 0.8
    np.testing.assert_allclose(depth[seen], truth[seen], rtol=0.005)
    assert confidence.min() >= 1.0


def test_the_cloud_lies_on_the_plane_in_the_world() -> None:
    cloud = keyframe_cloud(plane_keyframe(1))
    in_camera = cloud.points - np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(in_camera[:, 2], 2 + in_camera[:, 0] / 2, atol=1e-4)
    assert len(keyframe_cloud(plane_keyframe(1), min_confidence=5.1)) == 0


def test_a_compact_keyframe_shows_the_same_plane_with_fewer_points() -> None:
    small = compact(plane_keyframe())
    assert small.depth.shape == (60, 80)
    assert small.image.shape == (60, 80, 3)
    points = keyframe_cloud(small).points - np.array([0.0, 2.0, 3.0], np.float32)
    np.testing.assert_allclose(points[:, 2], 2 + points[:, 0] / 2, atol=1e-4)
    assert compact(small) is small


def test_the_store_thins_out_the_old_and_keeps_every_pose() -> None:
    store = KeyframeStore(max_pictures=20)
    for index in range(200):
        assert store.next_index() == index
        store.put(plane_keyframe(index, size=64))
        if index >= 5:
            store.retire(index - 5)
    kept = [keyframe.index for keyframe in store.all()]
    assert len(kept) <= 20 + 5
    assert kept[-5:] == [195, 196, 197, 198, 199]
    assert kept[0] == 0
    assert len(store.poses) == 200


def test_frames_move_with_their_keyframe_and_the_odometry_does_not() -> None:
    def shifted(x: float) -> np.ndarray:
        pose = np.eye(4)
        pose[0, 3] = x
        return pose

    trajectory, poses = FrameTrajectory(), {0: shifted(0.0)}
    for step in range(1, 4):
        trajectory.append(step, 0, shifted(0.1 * step))
        odometry = trajectory.advance(0, shifted(0.1 * step), poses)
    poses[0] = shifted(5.0)  # the map is corrected
    trajectory.append(4, 0, shifted(0.4))
    corrected = trajectory.advance(0, shifted(0.4), poses)
    assert corrected[0, 3] - odometry[0, 3] == pytest.approx(0.1)
    np.testing.assert_allclose([pose[0, 3] for _, pose in trajectory.poses(poses)], [5.1, 5.2, 5.3, 5.4], rtol=1e-6)
    assert [stamp for stamp, _ in trajectory.poses(poses, at_most=2)] == [1, 4]
