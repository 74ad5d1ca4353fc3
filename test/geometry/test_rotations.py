"""Rotations: one at a time or many at once, tiny and half turns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import pose_matrix, quaternion_from_matrix, rotation_angle, turn_between

TURNS = [(0.0, 0.0, 0.0), (1e-9, 0.0, 0.0), (0.1, -0.2, 0.3), (np.pi, 0.0, 0.0), (0.0, np.pi, 0.0), (0.0, 0.0, np.pi), (1.2, -2.0, 1.5)]


@pytest.mark.parametrize("turn", TURNS)
def test_a_quaternion_is_that_of_the_turn(turn: tuple[float, ...]) -> None:
    expected = Rotation.from_rotvec(turn)
    for matrix in (expected.as_matrix(), expected.as_matrix()[None]):
        found = np.ravel(quaternion_from_matrix(matrix))
        assert found[3] >= 0
        assert np.linalg.norm(found) == pytest.approx(1.0)
        assert abs(found @ expected.as_quat()) == pytest.approx(1.0)


@pytest.mark.parametrize("turn", TURNS)
def test_the_angle_is_exact_for_tiny_turns_and_half_ones(turn: tuple[float, ...]) -> None:
    assert rotation_angle(Rotation.from_rotvec(turn).as_matrix()) == pytest.approx(np.linalg.norm(turn), rel=1e-7, abs=1e-15)


@pytest.mark.parametrize("turn", [turn for turn in TURNS if np.linalg.norm(turn) < np.pi])
def test_a_turn_per_second_takes_resting_points_to_where_they_are_seen_later(turn: tuple[float, ...]) -> None:
    before = pose_matrix(Rotation.from_rotvec((0.3, 0.1, -0.2)).as_matrix(), (1.0, 2.0, 3.0))
    after = before.copy()
    after[:3, :3] = before[:3, :3] @ Rotation.from_rotvec(turn).as_matrix().T
    assert turn_between(before, after, 0.5) == pytest.approx(np.array(turn) / 0.5, abs=1e-12)
