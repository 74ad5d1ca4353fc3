"""The transform tree, and the frames of REP 103 and REP 105."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry.rotations import inverse_pose, pose_matrix
from dust3r_ros.ros.errors import TransformError
from dust3r_ros.ros.transforms import TransformBuffer


def pose(*rotation_vector: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    return pose_matrix(Rotation.from_rotvec(rotation_vector or (0.0, 0.0, 0.0)).as_matrix(), at)


BASE_MAST, MAST_CAMERA, BASE_ARM = pose(0, 0, 0.3, at=(1, 2, 3)), pose(0.1, 0.2, 0, at=(0, 0, 1)), pose(0.5, 0, 0, at=(-1, 0, 0))


@pytest.fixture
def buffer() -> TransformBuffer:
    buffer = TransformBuffer()
    buffer.set_static("base", "mast", BASE_MAST)
    buffer.set_static("mast", "camera", MAST_CAMERA)
    buffer.set_static("base", "arm", BASE_ARM)
    return buffer


def test_a_chain_multiplies_from_the_root_down(buffer: TransformBuffer) -> None:
    np.testing.assert_allclose(buffer.lookup("base", "camera"), BASE_MAST @ MAST_CAMERA)


def test_two_branches_meet_at_their_common_parent(buffer: TransformBuffer) -> None:
    np.testing.assert_allclose(buffer.lookup("arm", "camera"), inverse_pose(BASE_ARM) @ BASE_MAST @ MAST_CAMERA, atol=1e-12)


def test_a_frame_in_itself_is_the_identity(buffer: TransformBuffer) -> None:
    np.testing.assert_allclose(buffer.lookup("nowhere", "nowhere"), np.eye(4))


def test_what_is_missing_is_named(buffer: TransformBuffer) -> None:
    with pytest.raises(TransformError, match="'base' to 'gripper'"):
        buffer.lookup("base", "gripper")


def test_a_loop_is_told_and_not_walked_for_ever(buffer: TransformBuffer) -> None:
    buffer.set_static("camera", "base", np.eye(4))
    with pytest.raises(TransformError, match="loop"):
        buffer.lookup("base", "camera")


def test_a_moving_frame_is_interpolated_at_the_image_s_stamp() -> None:
    buffer = TransformBuffer()
    buffer.set_moving("odom", "base", 1_000_000_000, pose(0, 0, 0.0, at=(0, 0, 0)))
    buffer.set_moving("odom", "base", 2_000_000_000, pose(0, 0, 0.4, at=(2, 0, 0)))
    np.testing.assert_allclose(buffer.lookup("odom", "base", 1_250_000_000), pose(0, 0, 0.1, at=(0.5, 0, 0)), atol=1e-12)
    np.testing.assert_allclose(buffer.lookup("odom", "base"), pose(0, 0, 0.4, at=(2, 0, 0)))


def test_a_stamp_far_from_what_is_known_is_refused() -> None:
    buffer = TransformBuffer()
    buffer.set_moving("odom", "base", 1_000_000_000, np.eye(4))
    buffer.set_moving("odom", "base", 2_000_000_000, np.eye(4))
    with pytest.raises(TransformError, match="check the clocks"):
        buffer.lookup("odom", "base", 5_000_000_000)


def test_time_that_jumps_back_forgets_the_old_motion() -> None:
    buffer = TransformBuffer()
    buffer.set_moving("odom", "base", 9_000_000_000, pose(at=(9, 0, 0)))
    buffer.set_moving("odom", "base", 1_000_000_000, pose(at=(1, 0, 0)))
    np.testing.assert_allclose(buffer.lookup("odom", "base", 1_000_000_000)[:3, 3], (1, 0, 0))
