"""Messages as other ROS programs read them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from dust3r_ros.geometry import Camera
from dust3r_ros.geometry.rotations import pose_matrix
from dust3r_ros.io.messages import camera_from_info, decode_depth
from dust3r_ros.mapping.types import PointCloud
from dust3r_ros.ros.conversion import (
    as_data,
    camera_info_message,
    cloud_from_message,
    cloud_message,
    depth_array,
    depth_message,
    from_time,
    matrix_from_pose,
    matrix_from_transform,
    pose_message,
    to_header,
    to_time,
    transform_message,
)

TURNED = pose_matrix([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [1, 2, 3])


@pytest.fixture
def cloud() -> PointCloud:
    rng = np.random.default_rng(1)
    return PointCloud(
        rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 256, (50, 3), np.uint8), rng.uniform(1, 9, 50).astype(np.float32)
    )


@given(st.integers(0, 2**31 * 1_000_000_000 - 1))
def test_stamps_keep_every_nanosecond(stamp: int) -> None:
    assert from_time(to_time(stamp)) == stamp


def test_a_cloud_survives_the_wire(cloud: PointCloud) -> None:
    sent = serialize_message(cloud_message(cloud, Header(frame_id="map")))
    message = deserialize_message(sent, PointCloud2)
    assert [field.name for field in message.fields] == ["x", "y", "z", "rgb", "confidence"]
    assert (message.point_step, message.row_step, len(message.data)) == (20, 1000, 1000)
    back = cloud_from_message(message)
    np.testing.assert_array_equal(back.points, cloud.points)
    np.testing.assert_array_equal(back.colors, cloud.colors)
    np.testing.assert_array_equal(back.confidence, cloud.confidence)


def test_a_cloud_is_moved_into_the_header_s_frame(cloud: PointCloud) -> None:
    moved = cloud_from_message(cloud_message(cloud, Header(), TURNED)).points
    np.testing.assert_allclose(moved, cloud.points @ TURNED[:3, :3].T + TURNED[:3, 3], rtol=1e-5, atol=1e-5)


def test_an_empty_cloud_is_a_message_too() -> None:
    empty = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32))
    message = deserialize_message(serialize_message(cloud_message(empty, Header())), PointCloud2)
    assert message.width == 0
    assert len(cloud_from_message(message)) == 0


def test_unknown_depth_is_nan_as_rep_118_says() -> None:
    depth = np.array([[0.0, 1.5, 2.5], [3.5, 0.0, 4.5]], np.float32)
    message = deserialize_message(serialize_message(depth_message(depth, Header(), unknown=0.0)), Image)
    assert (message.encoding, message.width, message.height, message.step) == ("32FC1", 3, 2, 12)
    values = depth_array(message)
    np.testing.assert_array_equal(np.isnan(values), depth == 0)
    np.testing.assert_array_equal(values[depth > 0], depth[depth > 0])
    np.testing.assert_array_equal(np.nan_to_num(decode_depth(message)), depth)


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("pinhole", ()),
        ("plumb_bob", (0.1, -0.2, 0.01, 0.02, 0.03)),
        ("rational_polynomial", (0.1, 0.2, 0.01, 0.02, 0.03, 0.1, 0.1, 0.1)),
        ("equidistant", (0.1, 0.01, 0.001, 0.0001)),
        ("equidistant", (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_a_camera_survives_its_camera_info(model: str, distortion: tuple[float, ...]) -> None:
    camera = Camera(64, 48, 60.0, 61.0, 31.0, 23.0, model, distortion)
    message = deserialize_message(serialize_message(camera_info_message(camera, Header())), CameraInfo)
    back = camera_from_info(message)
    assert (back.width, back.height) == (64, 48)
    np.testing.assert_allclose(back.matrix, camera.matrix)
    pixels = np.array([[5.0, 5.0], [60.0, 40.0]])
    np.testing.assert_allclose(back.unproject(pixels), camera.unproject(pixels), atol=1e-9)


def test_poses_survive_as_transform_and_as_pose() -> None:
    stamped = transform_message(TURNED, to_header(5, "map"), "odom")
    assert (stamped.header.frame_id, stamped.child_frame_id, from_time(stamped.header.stamp)) == ("map", "odom", 5)
    np.testing.assert_allclose(matrix_from_transform(stamped.transform), TURNED, atol=1e-12)
    np.testing.assert_allclose(matrix_from_pose(pose_message(TURNED)), TURNED, atol=1e-12)


def test_data_is_the_array_s_bytes_row_by_row() -> None:
    values = np.arange(12, dtype=np.uint16).reshape(3, 4).T  # not contiguous
    assert as_data(values).tobytes() == values.tobytes()
    assert len(as_data(np.zeros((0, 4)))) == 0


# ---- against the tools of a full ROS installation ------------------------------------------------------------------------------------


def test_cv_bridge_reads_the_same_depth() -> None:
    cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge comes with a ROS installation")
    depth = np.random.default_rng(0).uniform(1, 9, (12, 16)).astype(np.float32)
    np.testing.assert_array_equal(cv_bridge.CvBridge().imgmsg_to_cv2(depth_message(depth, Header())), depth)


def test_sensor_msgs_py_reads_the_same_points(cloud: PointCloud) -> None:
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS installation")
    points = point_cloud2.read_points_numpy(cloud_message(cloud, Header()), ["x", "y", "z"])
    np.testing.assert_array_equal(points, cloud.points)


def test_tf_transformations_reads_the_same_rotation() -> None:
    tf_transformations = pytest.importorskip("tf_transformations", reason="tf_transformations comes with a ROS installation")
    q = pose_message(TURNED).orientation
    np.testing.assert_allclose(tf_transformations.quaternion_matrix([q.x, q.y, q.z, q.w])[:3, :3], TURNED[:3, :3], atol=1e-9)
