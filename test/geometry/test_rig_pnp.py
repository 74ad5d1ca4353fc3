"""One pose of several cameras that are fixed to one another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import Camera, GeometryError, Sight, inverse_pose, pose_matrix, rotation_angle, solve_rig_pnp, transform_points

CAMERA = Camera(320, 240, 270.0, 272.0, 158.0, 121.0, "plumb_bob", (-0.1, 0.02, 0.001, -0.001))
MOUNTS = [
    pose_matrix(Rotation.from_euler("y", np.radians(yaw)).as_matrix(), place)
    for yaw, place in ((0.0, (0.0, 0.0, 0.3)), (70.0, (0.4, 0.0, 0.1)), (-120.0, (-0.4, 0.1, -0.2)))
]
TRUE = pose_matrix(Rotation.from_rotvec((0.2, -0.7, 0.1)).as_matrix(), (1.0, -2.0, 0.5))


def sights(counts: tuple[int, ...], noise: float = 0.3, outliers: float = 0.0, seed: int = 0) -> list[Sight]:
    rng, found = np.random.default_rng(seed), []
    for mount, count in zip(MOUNTS, counts, strict=True):
        pixels = rng.uniform((5, 5), (315, 235), (count, 2))
        points = transform_points(TRUE @ mount, CAMERA.unproject(pixels) * rng.uniform(1.0, 6.0, (count, 1)))
        pixels = pixels + rng.normal(0, noise, pixels.shape)
        spoilt = rng.random(count) < outliers
        pixels[spoilt] = rng.uniform((0, 0), (320, 240), (int(spoilt.sum()), 2))
        found.append(Sight(points, pixels, CAMERA, mount, 2.0))
    return found


def error(pose: np.ndarray) -> tuple[float, float]:
    off = inverse_pose(TRUE) @ pose
    return float(np.linalg.norm(off[:3, 3])), rotation_angle(off[:3, :3])


@pytest.mark.parametrize("guess", [None, TRUE @ pose_matrix(Rotation.from_rotvec((0.0, 0.02, 0.01)).as_matrix(), (0.05, 0.02, 0.0))])
def test_all_cameras_points_give_one_pose_through_outliers(guess: np.ndarray | None) -> None:
    found = solve_rig_pnp(sights((60, 60, 60), outliers=0.35), guess)
    assert found is not None
    place, turn = error(found.pose)
    assert place < 0.01
    assert turn < 0.003
    assert 0.6 < found.share < 0.75


def test_points_too_few_for_any_camera_alone_are_enough_together() -> None:
    found = solve_rig_pnp(sights((4, 4, 4), noise=0.05), TRUE @ pose_matrix(np.eye(3), (0.02, 0.0, 0.01)))
    assert found is not None
    assert error(found.pose)[0] < 0.02


def test_cameras_that_look_different_ways_know_the_turn_better_than_one() -> None:
    both = [error(solve_rig_pnp(sights((30, 30, 30), 1.0, seed=seed), TRUE).pose)[0] for seed in range(20)]
    alone = [error(solve_rig_pnp(sights((90, 0, 0), 1.0, seed=seed), TRUE).pose)[0] for seed in range(20)]
    assert np.mean(both) < np.mean(alone)


def test_nonsense_is_no_pose_and_other_shapes_are_refused() -> None:
    assert solve_rig_pnp([]) is None
    one = sights((20, 0, 0))[0]
    assert solve_rig_pnp([Sight(np.full_like(one.points, np.nan), one.pixels, CAMERA, one.mount, 2.0)], TRUE) is None
    with pytest.raises(GeometryError, match=r"\(20, 3\) and pixels \(19, 2\)"):
        solve_rig_pnp([Sight(one.points, one.pixels[1:], CAMERA, one.mount, 2.0)])
