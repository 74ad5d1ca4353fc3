"""The measures of a pair, on geometry made by hand whose error is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dust3r_ros.training.evaluation.measures import MISSED, confidence_score, depth_score, normalised_errors, pose_score

EVERY = np.ones(4, bool)
SQUARE = np.array([[1.0, 0, 2], [-1, 0, 2], [0, 1, 2], [0, -1, 2]])  # all at the same distance: sqrt 5


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    pose[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    pose[:3, 3] = x, y, z
    return pose


# ---- points --------------------------------------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 1e3))
def test_points_are_right_on_any_scale(scale: float) -> None:
    assert normalised_errors(scale * SQUARE, SQUARE, EVERY) == pytest.approx(np.zeros(4), abs=1e-9)


def test_mirrored_points_are_off_by_what_the_mirror_moves_them() -> None:
    errors = normalised_errors(SQUARE * (-1, 1, 1), SQUARE, EVERY)
    assert errors == pytest.approx([2 / np.sqrt(5), 2 / np.sqrt(5), 0, 0])


def test_a_point_without_an_estimate_counts_as_the_cameras_centre() -> None:
    points = SQUARE.copy()
    points[0] = np.nan
    errors = normalised_errors(points, SQUARE, np.array([False, True, True, True]))
    assert errors == pytest.approx([1, 0, 0, 0])
    assert normalised_errors(points, SQUARE, np.zeros(4, bool)) == pytest.approx([1, 1, 1, 1])


def test_points_that_all_lie_in_the_centre_are_as_good_as_none() -> None:
    assert normalised_errors(np.zeros((4, 3)), SQUARE, EVERY) == pytest.approx([1, 1, 1, 1])


# ---- depth ---------------------------------------------------------------------------------------------------------------------------

TRUE_DEPTH = np.array([1.0, 2, 4, 8, 10])


def test_depth_is_compared_after_one_scale() -> None:
    found = 3 * TRUE_DEPTH * (1, 1, 1, 1.1, 1.5)
    score = depth_score(found, TRUE_DEPTH, np.ones(5, bool))
    assert (score.abs_rel, score.within_25_percent, score.coverage) == pytest.approx((0.6 / 5, 4 / 5, 1))
    assert score.abs_rel_estimated == pytest.approx(score.abs_rel)


def test_a_depth_without_an_estimate_counts_as_the_median() -> None:
    estimated = np.array([True, True, True, False, True])
    score = depth_score(TRUE_DEPTH * (1, 1, 1, 1, -1), TRUE_DEPTH, estimated)  # and one behind the camera
    assert score.coverage == pytest.approx(3 / 5)
    assert score.abs_rel == pytest.approx((4 / 8 + 6 / 10) / 5)  # 4 is the median
    assert score.within_25_percent == pytest.approx(3 / 5)
    assert score.abs_rel_estimated == pytest.approx(0)


def test_no_depth_at_all_is_as_good_as_a_constant() -> None:
    score = depth_score(np.full(5, np.nan), TRUE_DEPTH, np.ones(5, bool))
    assert (score.abs_rel_estimated, score.coverage) == (None, 0)
    assert score.abs_rel == pytest.approx((3 / 1 + 2 / 2 + 0 + 4 / 8 + 6 / 10) / 5)
    assert score.within_25_percent == pytest.approx(1 / 5)


# ---- pose ----------------------------------------------------------------------------------------------------------------------------


def test_pose_errors_are_angles_and_know_no_length() -> None:
    score = pose_score(moved(x=7, z=7, yaw=30), moved(x=0.1, yaw=20), distance=2.0)
    assert (score.rotation_degrees, score.translation_degrees) == pytest.approx((10, 45))


def test_the_opposite_direction_is_all_wrong() -> None:
    assert pose_score(moved(x=-1), moved(x=1), 2.0).translation_degrees == pytest.approx(180)


def test_a_camera_that_only_turned_has_no_direction_of_translation() -> None:
    assert pose_score(moved(x=1, yaw=33), moved(yaw=30), 2.0).translation_degrees is None
    assert pose_score(moved(x=1, yaw=33), moved(yaw=30, x=0.009), 2.0).translation_degrees is None
    assert pose_score(moved(x=1, yaw=33), moved(yaw=30), 2.0).rotation_degrees == pytest.approx(3)


def test_a_pose_that_was_not_found_misses() -> None:
    score = pose_score(None, moved(x=1), 2.0)
    assert (score.rotation_degrees, score.translation_degrees) == (MISSED, MISSED)
    assert pose_score(None, moved(yaw=5), 2.0).translation_degrees is None
    assert pose_score(moved(), moved(x=1), 2.0).translation_degrees == MISSED  # said not to have moved


# ---- confidence ----------------------------------------------------------------------------------------------------------------------

ERRORS = np.linspace(0.001, 1, 1000)


def test_a_confidence_that_knows_the_errors_is_perfect() -> None:
    score = confidence_score(1 + 1 / ERRORS**2, ERRORS)
    assert score is not None
    assert score.ause == pytest.approx(0, abs=1e-9)
    assert score.correlation < -0.98
    power = confidence_score(ERRORS**-1.5 * 50, ERRORS)
    assert power is not None
    assert power.correlation == pytest.approx(-1)


def test_a_confidence_that_says_nothing_has_a_flat_curve() -> None:
    score = confidence_score(np.full(1000, 2.0), ERRORS)
    assert score is not None
    # The best curve for errors that are spread evenly from 0 to 1 is 1 - share: half the area of the flat one.
    assert score.ause == pytest.approx(0.5, abs=0.01)
    assert score.correlation == 0


def test_a_confidence_that_is_wrong_is_worse_than_none() -> None:
    score = confidence_score(1 + ERRORS, ERRORS)
    assert score is not None
    assert score.ause == pytest.approx(0.99, abs=0.02)  # 1 + share / 1 against 1 - share
    assert score.correlation > 0.8


@given(st.permutations(range(8)))
def test_the_order_of_equally_confident_pixels_is_no_matter(order: list[int]) -> None:
    errors = np.repeat(np.arange(1.0, 9.0)[list(order)], 20)
    confidence = np.repeat(np.array([1.5, 1.5, 3, 3, 3, 3, 9, 9])[list(order)], 20)
    sort = np.argsort(confidence, kind="stable")
    score, again = confidence_score(confidence, errors), confidence_score(confidence[sort], errors[sort])
    assert score is not None
    assert again is not None
    assert (score.ause, score.correlation) == pytest.approx((again.ause, again.correlation))


def test_too_little_to_rank() -> None:
    assert confidence_score(np.full(50, 2.0), np.ones(50)) is None
    assert confidence_score(np.full(500, 2.0), np.zeros(500)) is None
