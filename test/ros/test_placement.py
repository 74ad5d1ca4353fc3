"""map -> odom -> base from the Mapper's poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry.rotations import inverse_pose, pose_matrix
from dust3r_ros.mapping.types import Frame, MapUpdate, TrackingState
from dust3r_ros.ros.errors import TransformError
from dust3r_ros.ros.parameters import NodeConfig
from dust3r_ros.ros.placement import OPTICAL_IN_BODY, Placement
from dust3r_ros.ros.transforms import TransformBuffer

IMAGE = np.zeros((40, 40, 3), np.uint8)
BASE_CAMERA = pose_matrix(Rotation.from_euler("z", 20, degrees=True).as_matrix(), (0.3, 0.0, 0.5)) @ OPTICAL_IN_BODY


def update(pose: np.ndarray | None, odometry: np.ndarray | None, stamp: int = 1) -> MapUpdate:
    return MapUpdate(Frame(stamp, IMAGE), TrackingState.TRACKING, "", pose, odometry)


def ahead(z: float, turn: float = 0.0) -> np.ndarray:
    return pose_matrix(Rotation.from_rotvec((0, turn, 0)).as_matrix(), (0, 0, z))


@pytest.fixture
def on_base() -> Placement:
    buffer = TransformBuffer()
    buffer.set_static("base_link", "camera", BASE_CAMERA)
    return Placement(NodeConfig(base_frame="base_link"), buffer)


def test_ahead_of_the_camera_is_x_of_the_map_and_up_is_z() -> None:
    placement = Placement(NodeConfig(), TransformBuffer())
    placement.locate_camera("camera", 0)
    assert placement.child == "camera"
    moved = placement.child_pose(pose_matrix(np.eye(3), (1, -2, 3)))  # right, up, ahead
    np.testing.assert_allclose(moved[:3, 3], (3, -1, 2))


def test_with_a_base_the_map_starts_at_the_base(on_base: Placement) -> None:
    on_base.locate_camera("camera", 0)
    placed = on_base.place(update(np.eye(4), np.eye(4)))
    assert placed.child == "base_link"
    np.testing.assert_allclose(placed.odom_child, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(placed.map_odom, np.eye(4), atol=1e-12)


def test_the_camera_s_motion_moves_the_base_rigidly(on_base: Placement) -> None:
    on_base.locate_camera("camera", 0)
    motion = ahead(1.0, 0.3)
    placed = on_base.place(update(motion, motion))
    np.testing.assert_allclose(placed.odom_child, BASE_CAMERA @ motion @ inverse_pose(BASE_CAMERA), atol=1e-12)


def test_a_correction_moves_map_odom_alone(on_base: Placement) -> None:
    on_base.locate_camera("camera", 0)
    before = on_base.place(update(ahead(1.0), ahead(1.0)))
    after = on_base.place(update(ahead(1.5), ahead(1.0), 2))
    np.testing.assert_allclose(after.odom_child, before.odom_child, atol=1e-12)
    assert not np.allclose(after.map_odom, before.map_odom)
    np.testing.assert_allclose(after.map_odom @ after.odom_child, on_base.child_pose(ahead(1.5)), atol=1e-12)


def test_odom_does_not_jump_when_the_map_starts_anew(on_base: Placement) -> None:
    on_base.locate_camera("camera", 0)
    before = on_base.place(update(ahead(2.0), ahead(2.0)))
    on_base.restarted()
    on_base.locate_camera("camera", 0)
    after = on_base.place(update(np.eye(4), np.eye(4), 2))
    np.testing.assert_allclose(after.odom_child, before.odom_child, atol=1e-12)
    np.testing.assert_allclose(after.map_odom @ after.odom_child, np.eye(4), atol=1e-12)


def test_while_lost_the_correction_holds_still(on_base: Placement) -> None:
    on_base.locate_camera("camera", 0)
    before = on_base.place(update(ahead(1.5), ahead(1.0)))
    placed = on_base.place(update(None, ahead(1.0), 2))
    np.testing.assert_array_equal(placed.map_odom, before.map_odom)
    assert placed.lost
    assert placed.odom_child is not None
    on_base.restarted(same_map_frame=True)
    assert on_base.place(update(None, ahead(1.0), 3)).map_odom is None  # in another map it is not known yet


def test_somebody_else_s_odometry_is_looked_up() -> None:
    buffer = TransformBuffer()
    buffer.set_static("base_link", "camera", BASE_CAMERA)
    wheels = pose_matrix(np.eye(3), (0.9, 0, 0))
    buffer.set_moving("odom", "base_link", 1, wheels)
    placement = Placement(NodeConfig(base_frame="base_link", publish_odom_tf=False), buffer)
    placement.locate_camera("camera", 1)
    placed = placement.place(update(ahead(1.0), ahead(1.0)))
    np.testing.assert_allclose(placed.odom_child, wheels)
    np.testing.assert_allclose(placed.map_odom @ wheels, placement.child_pose(ahead(1.0)), atol=1e-12)


def test_a_missing_base_transform_is_named_and_nothing_is_placed() -> None:
    placement = Placement(NodeConfig(base_frame="base_link"), TransformBuffer())
    with pytest.raises(TransformError, match="'base_link' to 'camera'"):
        placement.locate_camera("camera", 0)
    assert placement.map_from_world is None


def test_the_covariance_of_the_base_is_that_of_drawn_errors_of_the_camera(on_base: Placement) -> None:
    on_base.locate_camera("camera", 0)
    rng = np.random.default_rng(0)
    root = rng.normal(0, 0.01, (6, 6))
    odometry = ahead(1.0, 0.7)
    told = replace(update(odometry, odometry), odometry_covariance=root @ root.T)
    placed = on_base.place(told)
    said = on_base.odometry_covariance(told, placed.odom_child)
    errors = []
    for _ in range(4000):
        move, turn = np.split(root @ rng.normal(size=6), 2)
        wrong = odometry.copy()
        wrong[:3, :3], wrong[:3, 3] = Rotation.from_rotvec(turn).as_matrix() @ odometry[:3, :3], odometry[:3, 3] + move
        base = on_base.child_pose(wrong)
        turned = Rotation.from_matrix(base[:3, :3] @ placed.odom_child[:3, :3].T).as_rotvec()
        errors.append(np.concatenate([base[:3, 3] - placed.odom_child[:3, 3], turned]))
    drawn = np.cov(np.array(errors).T)
    np.testing.assert_allclose(said, drawn, atol=0.08 * np.abs(drawn).max())


def test_of_somebody_elses_odometry_the_covariance_is_not_known() -> None:
    placement = Placement(NodeConfig(publish_odom_tf=False), TransformBuffer())
    placement.locate_camera("camera", 0)
    assert placement.odometry_covariance(replace(update(np.eye(4), np.eye(4)), odometry_covariance=np.eye(6)), np.eye(4)) is None
