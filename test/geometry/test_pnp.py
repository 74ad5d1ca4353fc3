"""A camera's pose from points and pixels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import Camera, GeometryError, pose_matrix, reproject, rotation_angle, solve_pnp, transform_points

PINHOLE = Camera(640, 480, 400.0, 410.0, 322.0, 236.0)
LENSES = [
    PINHOLE,
    replace(PINHOLE, model="plumb_bob", distortion=(-0.28, 0.07, 0.001, -0.0005, 0.002)),
    replace(PINHOLE, fx=250.0, fy=255.0, model="equidistant", distortion=(-0.01, 0.005, -0.002, 0.0002)),
]
every_lens = pytest.mark.parametrize("camera", LENSES, ids=["pinhole", "plumb_bob", "equidistant"])


def scene(camera: Camera, seed: int, count: int = 200, flat: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World points in view, their exact pixels, and the camera's pose."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform((60, 60), (580, 420), (count, 2))
    rays = camera.unproject(pixels)
    depth = 3.0 / (rays @ (0.1, -0.08, 1.0)) if flat else rng.uniform(2.0, 6.0, count)
    pose = pose_matrix(Rotation.random(rng=rng).as_matrix(), rng.uniform(-5, 5, 3))
    return transform_points(pose, rays * depth[:, None]), pixels, pose


def pose_error(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    return rotation_angle(found[:3, :3] @ truth[:3, :3].T), float(np.linalg.norm(found[:3, 3] - truth[:3, 3]))


@every_lens
def test_points_come_back_to_their_pixels(camera):
    world, pixels, pose = scene(camera, 0)
    assert np.allclose(reproject(world, camera, pose), pixels, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(LENSES), st.booleans())
def test_exact_points_give_the_exact_pose(seed, camera, flat):
    world, pixels, pose = scene(camera, seed, flat=flat)
    found = solve_pnp(world, pixels, camera)
    assert max(pose_error(found.pose, pose)) < 1e-5
    assert found.inliers.all()
    assert found.error_px < 1e-3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(LENSES))
def test_outliers_are_told_from_inliers(seed, camera):
    world, pixels, pose = scene(camera, seed)
    rng = np.random.default_rng(seed + 1)
    seen = pixels + rng.normal(scale=0.2, size=pixels.shape)
    seen[:80] = rng.uniform((0, 0), (640, 480), (80, 2))
    found = solve_pnp(world, seen, camera, threshold_px=2.0)
    angle, distance = pose_error(found.pose, pose)
    assert angle < 2e-3
    assert distance < 1e-2
    assert found.inliers[80:].mean() > 0.98
    assert found.inliers[:80].mean() < 0.1


@every_lens
@pytest.mark.parametrize("flat", [False, True], ids=["deep", "flat"])
def test_a_quarter_of_true_matches_is_enough(camera, flat):
    world, pixels, pose = scene(camera, 11, count=300, flat=flat)
    rng = np.random.default_rng(0)
    seen = pixels + rng.normal(scale=0.2, size=pixels.shape)
    seen[75:] = rng.uniform((0, 0), (640, 480), (225, 2))
    found = solve_pnp(world, seen, camera)
    angle, distance = pose_error(found.pose, pose)
    assert angle < 5e-3
    assert distance < 3e-2


@pytest.mark.parametrize("count", [6, 8, 12])
def test_a_handful_of_exact_points_is_enough(count):
    world, pixels, pose = scene(PINHOLE, 12, count=count)
    assert max(pose_error(solve_pnp(world, pixels, PINHOLE).pose, pose)) < 1e-4


@every_lens
def test_a_guess_near_or_far_leads_to_the_same_pose(camera):
    world, pixels, pose = scene(camera, 3)
    pixels = pixels + np.random.default_rng(0).normal(scale=0.2, size=pixels.shape)
    alone = solve_pnp(world, pixels, camera)
    near = pose @ pose_matrix(Rotation.from_rotvec([0.002, -0.002, 0.001]).as_matrix(), [0.005, 0.003, -0.005])
    behind = pose @ pose_matrix(np.diag([-1.0, 1.0, -1.0]), [0.0, 0.0, 20.0])
    for guess in (near, behind):
        found = solve_pnp(world, pixels, camera, guess=guess)
        assert max(pose_error(found.pose, alone.pose)) < 1e-4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_where_a_guess_ends_does_not_hang_on_where_it_began(seed):
    """Far enough off that few points agree at first: their number grows until it stands, and the pose with them."""
    world, pixels, pose = scene(PINHOLE, seed, count=80)
    rng = np.random.default_rng(seed + 1)
    seen = pixels + rng.normal(scale=0.3, size=pixels.shape)
    off = pose @ pose_matrix(Rotation.from_rotvec(rng.normal(scale=0.012, size=3)).as_matrix(), rng.normal(scale=0.03, size=3))
    near, far = (solve_pnp(world, seen, PINHOLE, threshold_px=2.0, guess=guess) for guess in (pose, off))
    assert (near.inliers == far.inliers).all()
    assert max(pose_error(near.pose, far.pose)) < 1e-5


def test_the_unit_of_length_and_the_place_do_not_matter():
    world, pixels, pose = scene(PINHOLE, 4)
    for scale, shift in ((1e-3, 0.0), (1e3, 0.0), (1.0, 1e5)):
        found = solve_pnp(world * scale + shift, pixels, PINHOLE)
        assert np.allclose(found.pose[:3, 3], pose[:3, 3] * scale + shift, rtol=1e-9, atol=1e-4 * scale)


def test_the_same_input_gives_the_same_pose():
    world, pixels, _ = scene(PINHOLE, 5)
    pixels[:60] = pixels[:60][::-1]
    first = solve_pnp(world, pixels, PINHOLE)
    solve_pnp(*scene(PINHOLE, 6)[:2], PINHOLE)
    again = solve_pnp(world, pixels, PINHOLE)
    assert (first.pose == again.pose).all()
    assert (first.inliers == again.inliers).all()


def test_rows_that_are_not_finite_are_outliers():
    world, pixels, pose = scene(PINHOLE, 7)
    world[0], pixels[1] = np.nan, np.inf
    found = solve_pnp(world, pixels, PINHOLE)
    assert max(pose_error(found.pose, pose)) < 1e-5
    assert found.inliers[:2].tolist() == [False, False]
    assert found.inliers[2:].all()


@pytest.mark.parametrize("guess", [None, np.eye(4)], ids=["no guess", "guess"])
def test_what_gives_no_pose_gives_none(guess):
    rng = np.random.default_rng(0)
    pixels = rng.uniform((0, 0), (640, 480), (100, 2))
    unrelated = rng.uniform((-1, -1, 2), (1, 1, 4), (100, 3))
    assert solve_pnp(unrelated, pixels, PINHOLE, threshold_px=0.5, guess=guess) is None
    assert solve_pnp(np.ones((100, 3)), pixels, PINHOLE, guess=guess) is None
    assert solve_pnp(unrelated[:5], pixels[:5], PINHOLE, guess=guess) is None
    assert solve_pnp(unrelated[:0], pixels[:0], PINHOLE, guess=guess) is None
    assert solve_pnp(np.full((100, 3), np.nan), pixels, PINHOLE, guess=guess) is None


def test_wrong_shapes_are_named():
    with pytest.raises(GeometryError, match=r"\(10, 3\) and pixels of shape \(9, 2\)"):
        solve_pnp(np.ones((10, 3)), np.ones((9, 2)), PINHOLE)
    with pytest.raises(GeometryError, match="threshold of 0"):
        solve_pnp(np.ones((10, 3)), np.ones((10, 2)), PINHOLE, threshold_px=0)
