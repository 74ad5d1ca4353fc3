"""Relative pose from corresponding rays, on points whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dust3r_ros.estimators.flow.pair_pose import epipolar_distance, fit_rotation, pair_pose, rotation_matrix

FOCAL = 260.0


def scene(seed: int, turn: np.ndarray, shift: np.ndarray, noise: float = 0.0, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Rays of random points 2 to 6 units away in two cameras."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-0.55, 0.55, (count, 2))
    points = np.concatenate([xy, np.ones((count, 1))], 1) * rng.uniform(2, 6, (count, 1))
    moved = points @ rotation_matrix(turn).T + shift
    rays_1, rays_2 = points / points[:, 2:], moved / moved[:, 2:]
    rays_2[:, :2] += rng.normal(0, noise / FOCAL, (count, 2))
    return rays_1, rays_2


def degrees_between(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    turn=st.tuples(*[st.floats(-0.15, 0.15)] * 3),
    azimuth=st.floats(0, 2 * np.pi),
    height=st.floats(-1, 1),
)
def test_any_motion_is_found_from_exact_rays(seed: int, turn: tuple[float, float, float], azimuth: float, height: float) -> None:
    flat = np.sqrt(1 - height**2)
    direction = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), height])
    found = pair_pose(*scene(seed, np.array(turn), 0.3 * direction), FOCAL)
    assert found is not None
    assert np.allclose(found.rotation, rotation_matrix(np.array(turn)), atol=1e-4)
    assert degrees_between(found.translation, direction) < 0.1
    assert np.linalg.norm(found.translation) == pytest.approx(1)


def test_a_third_of_wrong_matches_does_no_harm() -> None:
    turn, direction = np.array([0.02, -0.05, 0.01]), np.array([0.9, 0.1, 0.3])
    rays_1, rays_2 = scene(1, turn, 0.4 * direction, noise=0.2)
    rng = np.random.default_rng(2)
    rays_2[:200, :2] += rng.uniform(-0.1, 0.1, (200, 2))
    found = pair_pose(rays_1, rays_2, FOCAL)
    assert found is not None
    assert degrees_between(found.translation, direction) < 3
    distance = epipolar_distance(rays_1, rays_2, found.rotation, found.translation, FOCAL)
    assert np.median(distance[200:]) < 0.3


def test_a_pure_rotation_has_no_direction() -> None:
    turn = np.array([0.03, 0.12, -0.05])
    found = pair_pose(*scene(3, turn, np.zeros(3), noise=0.1), FOCAL)
    assert found is not None
    assert not found.translation.any()
    assert found.parallax < 0.5
    assert np.allclose(found.rotation, rotation_matrix(turn), atol=1e-3)


def test_rotation_and_parallax_are_told_apart() -> None:
    turn = np.array([0.0, 0.1, 0.0])
    _, still = fit_rotation(*scene(4, turn, np.zeros(3)), FOCAL)
    _, moving = fit_rotation(*scene(4, turn, np.array([0.3, 0, 0])), FOCAL)
    assert still < 1e-6
    assert moving > 2


def test_too_few_points_give_no_pose() -> None:
    rays_1, rays_2 = scene(5, np.zeros(3), np.array([0.3, 0, 0]), count=10)
    assert pair_pose(rays_1, rays_2, FOCAL) is None
