"""The bundle adjustment on a window of known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dust3r_ros.estimators.flow.bundle import Observations, adjust
from dust3r_ros.estimators.flow.pair_pose import rotation_matrix

FOCAL = 260.0
VIEWS, POINTS = 5, 80


def window(noise: float = 0.0, outliers: float = 0.0) -> tuple[Observations, np.ndarray, np.ndarray]:
    """Observations along all pairs of a camera that slides and turns, the true poses (world to camera) and inverse depths."""
    rng = np.random.default_rng(0)
    poses = np.repeat(np.eye(4)[None], VIEWS, 0)
    poses[:, :3, :3] = rotation_matrix(np.arange(VIEWS)[:, None] * np.array([0.01, 0.03, -0.005]))
    poses[:, :3, 3] = np.arange(VIEWS)[:, None] * np.array([-0.15, 0.02, 0.05])
    rays = np.concatenate([rng.uniform(-0.5, 0.5, (VIEWS, POINTS, 2)), np.ones((VIEWS, POINTS, 1))], -1)
    inverse_depth = 1 / rng.uniform(2, 6, (VIEWS, POINTS))
    pairs = np.array([(a, b) for a in range(VIEWS) for b in range(VIEWS) if a != b])
    seen = np.empty((len(pairs), POINTS, 2))
    for index, (a, b) in enumerate(pairs):
        relative = poses[b] @ np.linalg.inv(poses[a])
        moved = rays[a] @ relative[:3, :3].T + inverse_depth[a][:, None] * relative[:3, 3]
        seen[index] = moved[:, :2] / moved[:, 2:]
    seen += rng.normal(0, noise / FOCAL, seen.shape)
    wrong = rng.random(seen.shape[:2]) < outliers
    seen[wrong] += rng.uniform(-0.1, 0.1, (np.count_nonzero(wrong), 2))
    return (
        Observations(rays, pairs, seen, np.ones(seen.shape[:2]), np.full(len(pairs), FOCAL), np.zeros((VIEWS, POINTS))),
        poses,
        inverse_depth,
    )


def disturbed(poses: np.ndarray, inverse_depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    change = np.repeat(np.eye(4)[None], len(poses), 0)
    change[1:, :3, :3] = rotation_matrix(rng.normal(0, 0.01, (len(poses) - 1, 3)))
    change[1:, :3, 3] = rng.normal(0, 0.02, (len(poses) - 1, 3))
    return change @ poses, inverse_depth * rng.uniform(0.8, 1.25, inverse_depth.shape)


def scale_free(poses: np.ndarray) -> np.ndarray:
    """Camera centres in units of the whole path."""
    centres = -np.einsum("vji,vj->vi", poses[:, :3, :3], poses[:, :3, 3])
    return centres / np.linalg.norm(centres[-1] - centres[0])


def test_exact_observations_lead_back_to_the_truth() -> None:
    observations, poses, inverse_depth = window()
    found, depth, cost = adjust(observations, *disturbed(poses, inverse_depth), iterations=30)
    assert cost < 1e-8
    assert np.allclose(scale_free(found), scale_free(poses), atol=1e-4)
    ratio = depth / inverse_depth
    assert np.allclose(ratio, np.median(ratio), rtol=1e-3)


def test_noise_and_outliers_are_borne() -> None:
    observations, poses, inverse_depth = window(noise=0.2, outliers=0.15)
    found, depth, _ = adjust(observations, *disturbed(poses, inverse_depth), iterations=20)
    assert np.abs(scale_free(found) - scale_free(poses)).max() < 0.03
    ratio = depth / inverse_depth
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.02


def test_the_first_view_holds_the_world() -> None:
    observations, poses, inverse_depth = window(noise=0.2)
    found, _, _ = adjust(observations, *disturbed(poses, inverse_depth), iterations=5)
    assert np.array_equal(found[0], poses[0])


def test_points_that_nobody_sees_stay_where_they_were() -> None:
    observations, poses, inverse_depth = window()
    observations.weight[observations.pairs[:, 0] == 2, :10] = 0
    _, depth, _ = adjust(observations, poses, inverse_depth * 1.01, iterations=5)
    assert np.array_equal(depth[2, :10], inverse_depth[2, :10] * 1.01)


def test_a_camera_that_only_turns_keeps_the_depths_it_is_given() -> None:
    observations, poses, inverse_depth = window(noise=0.1)
    poses = poses.copy()
    poses[:, :3, 3] = 0
    for index, (a, b) in enumerate(observations.pairs):
        moved = observations.rays[a] @ (poses[b] @ np.linalg.inv(poses[a]))[:3, :3].T
        observations.seen[index] = moved[:, :2] / moved[:, 2:]
    held = replace(observations, known=inverse_depth)
    _, depth, _ = adjust(held, poses, inverse_depth * 1.05, iterations=20)
    assert np.allclose(depth, inverse_depth, rtol=0.01)
