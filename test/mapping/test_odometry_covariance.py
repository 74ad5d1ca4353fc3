"""The odometry promises as much as it keeps: pose by pose against drawn errors, and over simulated walks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.odometry_errors import WALKS, normalised_errors, odometry_errors

from dust3r_ros.geometry import Camera, inverse_pose, pose_matrix, reproject, solve_pnp
from dust3r_ros.mapping.tracking.odometry_covariance import INDEPENDENT, KEYFRAME_SCALE, OdometryCovariance, pnp_covariance

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)


def increment(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """[6] on the right of `found`: rotation, translation."""
    step = inverse_pose(found) @ true
    return np.concatenate([Rotation.from_matrix(step[:3, :3]).as_rotvec(), step[:3, 3]])


def test_the_covariance_of_a_pose_is_that_of_drawn_pixel_errors() -> None:
    rng = np.random.default_rng(0)
    count, sigma = int(INDEPENDENT), 0.4
    points = np.column_stack([rng.uniform(-0.5, 0.5, count), rng.uniform(-0.4, 0.4, count), np.ones(count)]) * rng.uniform(1, 4, (count, 1))
    true = pose_matrix(Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix(), [0.1, 0.05, -0.2])
    seen = reproject(points, CAMERA, true)
    errors = []
    for _ in range(300):
        found = solve_pnp(points, seen + rng.normal(0, sigma, seen.shape), CAMERA, 5.0, guess=true)
        assert found is not None
        errors.append(increment(found.pose, true))
    said = pnp_covariance(points, CAMERA, true, sigma * np.sqrt(2))
    drawn = np.cov(np.array(errors).T)
    np.testing.assert_allclose(np.sqrt(np.diag(said) / np.diag(drawn)), 1.0, atol=0.12)
    nees = np.mean([e @ np.linalg.solve(said, e) / 6 for e in errors])
    assert 0.85 < nees < 1.15


def test_it_grows_with_the_error_and_where_few_agree_and_shrinks_slowly_with_many_points() -> None:
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-1, 1, 400), rng.uniform(-1, 1, 400), rng.uniform(2, 4, 400)])
    usual = pnp_covariance(points, CAMERA, np.eye(4), 1.0)
    np.testing.assert_allclose(pnp_covariance(points, CAMERA, np.eye(4), 2.0), 4 * usual)
    assert np.trace(pnp_covariance(points, CAMERA, np.eye(4), 1.0, share=0.5)) > 10 * np.trace(usual)
    fewer = pnp_covariance(points[:100], CAMERA, np.eye(4), 1.0)
    assert 1.5 * np.trace(usual) < np.trace(fewer) < 2.5 * np.trace(usual)  # four times the points: half the variance, not a quarter
    line = np.column_stack([np.zeros(20), np.zeros(20), np.linspace(1, 3, 20)])  # the turn about it is open
    open_turn = pnp_covariance(line, CAMERA, np.eye(4), 1.0)
    assert np.isfinite(open_turn).all()
    assert open_turn[2, 2] > 100 * usual[2, 2]


def test_errors_add_up_from_keyframe_to_keyframe_and_not_within_one() -> None:
    measured = np.diag([0.01, 0.01, 0.01, 0.02, 0.02, 0.02]) ** 2
    believed = OdometryCovariance()
    for _ in range(50):
        still = believed.advance(0, measured, np.eye(4))
    np.testing.assert_allclose(np.sqrt(np.diag(still)), [0.02] * 3 + [0.01] * 3)
    for keyframe in range(1, 4):
        still = believed.advance(keyframe, measured, np.eye(4))
    np.testing.assert_allclose(np.diag(still), 4 * np.array([0.02**2] * 3 + [0.01**2] * 3))


def test_the_chains_covariance_is_that_of_drawn_chains() -> None:
    """Keyframes along an arc, each measured from the one before with errors of a known covariance."""
    rng = np.random.default_rng(2)
    step = pose_matrix(Rotation.from_rotvec([0.0, 0.2, 0.0]).as_matrix(), [0.4, 0.0, 0.1])
    root = np.diag([0.004, 0.006, 0.005, 0.01, 0.02, 0.015]) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    measured = root @ root.T
    believed, true = OdometryCovariance(), np.eye(4)
    for keyframe in range(8):
        true = true @ step
        said = believed.advance(keyframe, measured, true)
    errors = []
    for _ in range(2000):
        pose = np.eye(4)
        for _ in range(8):
            error = root @ rng.normal(size=6)
            along = KEYFRAME_SCALE * rng.normal()
            moved = step.copy()
            moved[:3, 3] *= 1 + along
            pose = pose @ moved @ pose_matrix(Rotation.from_rotvec(error[:3]).as_matrix(), error[3:])
        errors.append(np.concatenate([pose[:3, 3] - true[:3, 3], Rotation.from_matrix(pose[:3, :3] @ true[:3, :3].T).as_rotvec()]))
    drawn = np.cov(np.array(errors).T)
    np.testing.assert_allclose(np.diag(said) / np.diag(drawn), 1.0, atol=0.15)
    np.testing.assert_allclose(said, drawn, atol=0.12 * np.abs(drawn).max())


@pytest.mark.slow
def test_over_simulated_walks_the_normalised_error_is_one() -> None:
    """Seeds that the calibration has not seen."""
    by_walk = {walk: np.concatenate([normalised_errors(odometry_errors(walk, 60, 160, 0.02, seed)) for seed in (11, 12)]) for walk in WALKS}
    assert 0.7 < np.mean([errors.mean() for errors in by_walk.values()]) < 1.5
    for errors in by_walk.values():
        assert 0.35 < errors.mean() < 2.5  # one walk has few keyframes, whose errors go together
