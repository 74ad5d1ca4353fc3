"""Similarities as a group, rotations and poses, and the fit between matched points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import (
    GeometryError,
    Similarity,
    inverse_pose,
    matrix_from_quaternion,
    nearest_rotation,
    pose_matrix,
    procrustes,
    quaternion_from_matrix,
    robust_procrustes,
    rotation_angle,
    transform_points,
)

seeds = st.integers(0, 2**32 - 1)
POINTS = np.random.default_rng(7).normal(size=(50, 3))


def random_similarity(seed: int) -> Similarity:
    rng = np.random.default_rng(seed)
    return Similarity(float(np.exp(rng.uniform(-3, 3))), Rotation.random(rng=rng).as_matrix(), rng.uniform(-10, 10, 3))


def same(a: Similarity, b: Similarity, tolerance: float = 1e-9) -> bool:
    return np.allclose(a.matrix, b.matrix, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(a.matrix).max())))


@given(seeds, seeds, seeds)
def test_similarities_are_a_group(one, two, three):
    a, b, c = map(random_similarity, (one, two, three))
    assert same((a @ b) @ c, a @ (b @ c))
    assert same(a @ a.inverse(), Similarity.identity(), 1e-8)
    assert same(a @ Similarity.identity(), a)
    assert np.allclose((a @ b).apply(POINTS), a.apply(b.apply(POINTS)))
    assert np.allclose((a @ b).matrix, a.matrix @ b.matrix)


@given(seeds)
def test_a_similarity_comes_back_from_its_matrix(seed):
    a = random_similarity(seed)
    assert same(Similarity.from_matrix(a.matrix), a)


@given(seeds, seeds)
def test_a_camera_moved_with_the_world_sees_the_same_scaled(one, two):
    world = random_similarity(one)
    pose = random_similarity(two)
    pose = pose_matrix(pose.rotation, pose.translation)
    before = transform_points(inverse_pose(pose), POINTS)
    after = transform_points(inverse_pose(world.apply_pose(pose)), world.apply(POINTS))
    assert np.allclose(after, world.scale * before)


def test_long_chains_stay_rotations():
    step = Similarity(1.0, Rotation.from_rotvec([0.01, 0.02, 0.03]).as_matrix(), np.array([0.1, 0.0, 0.0]))
    chain = Similarity.identity()
    for _ in range(2000):
        chain = chain @ step
    assert np.allclose(chain.rotation @ chain.rotation.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("scale", "rotation", "translation"),
    [
        (0.0, np.eye(3), np.zeros(3)),
        (-1.0, np.eye(3), np.zeros(3)),
        (float("nan"), np.eye(3), np.zeros(3)),
        (1.0, np.diag([1.0, 1.0, -1.0]), np.zeros(3)),
        (1.0, 2 * np.eye(3), np.zeros(3)),
        (1.0, np.eye(3), np.array([0.0, np.nan, 0.0])),
        (1.0, np.eye(3), np.zeros(2)),
    ],
)
def test_what_is_no_similarity_is_refused(scale, rotation, translation):
    with pytest.raises(GeometryError, match="similarity"):
        Similarity(scale, rotation, translation)


def test_a_mirroring_matrix_is_refused():
    with pytest.raises(GeometryError, match="determinant -1"):
        Similarity.from_matrix(np.diag([1.0, 1.0, -1.0, 1.0]))


@given(seeds)
def test_quaternions_come_back(seed):
    rotations = Rotation.random(5, rng=np.random.default_rng(seed)).as_matrix()
    quaternions = quaternion_from_matrix(rotations)
    assert quaternions.shape == (5, 4)
    assert (quaternions[:, 3] >= 0).all()
    assert np.allclose(matrix_from_quaternion(quaternions), rotations)
    assert np.allclose(matrix_from_quaternion(-3 * quaternions[0]), rotations[0])


def test_quaternions_are_x_y_z_w():
    quarter_about_z = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert quaternion_from_matrix(quarter_about_z) == pytest.approx([0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)])
    for nothing in ([0.0] * 4, [np.nan, 0.0, 0.0, 1.0]):
        with pytest.raises(GeometryError, match="no rotation"):
            matrix_from_quaternion(nothing)


@given(st.floats(1e-9, np.pi), seeds)
def test_a_rotation_has_its_angle(angle, seed):
    axis = np.random.default_rng(seed).normal(size=3)
    rotation = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    assert rotation_angle(rotation) == pytest.approx(angle, rel=1e-4, abs=1e-7)


@given(seeds)
def test_the_nearest_rotation_is_a_rotation_and_nearest(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(3, 3))
    found = nearest_rotation(matrix)
    assert np.allclose(found @ found.T, np.eye(3))
    assert np.linalg.det(found) == pytest.approx(1.0)
    others = Rotation.random(50, rng=rng).as_matrix()
    assert np.linalg.norm(found - matrix) <= np.linalg.norm(others - matrix, axis=(1, 2)).min() + 1e-12


@given(seeds, seeds, st.booleans())
def test_procrustes_finds_the_similarity_that_made_the_points(one, two, weighted):
    truth, rng = random_similarity(one), np.random.default_rng(two)
    points = rng.normal(size=(10, 3))
    weights = rng.uniform(0.1, 5.0, 10) if weighted else None
    assert same(procrustes(points, truth.apply(points), weights), truth, 1e-7)
    assert same(robust_procrustes(points, truth.apply(points), weights), truth, 1e-7)


@given(seeds)
def test_procrustes_is_the_least_squares_optimum(seed):
    rng = np.random.default_rng(seed)
    source, weights = rng.normal(size=(20, 3)), rng.uniform(0, 1, 20)
    target = random_similarity(seed).apply(source) + rng.normal(size=(20, 3))
    found = procrustes(source, target, weights)

    def cost(similarity: Similarity) -> float:
        return float(weights @ ((similarity.apply(source) - target) ** 2).sum(1))

    for _ in range(20):
        turn = Rotation.from_rotvec(rng.normal(scale=0.01, size=3)).as_matrix()
        nudge = Similarity(float(np.exp(rng.normal(scale=0.01))), turn, rng.normal(scale=0.01, size=3))
        assert cost(found) <= cost(nudge @ found) + 1e-9


@given(seeds, seeds, seeds)
def test_procrustes_moves_with_both_sets(one, two, three):
    rng = np.random.default_rng(one)
    source, target = rng.normal(size=(15, 3)), rng.normal(size=(15, 3))
    target += 2 * source
    a, b = random_similarity(two), random_similarity(three)
    found = procrustes(source, target)
    # Least squares in the target's space: any similarity of it and any of the source's leave the optimum where it was.
    assert same(procrustes(a.apply(source), b.apply(target)), b @ found @ a.inverse(), 1e-6)


@given(seeds, st.integers(1, 5))
def test_a_weight_is_a_repetition_and_zero_is_absence(seed, times):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(8, 3)), rng.normal(size=(8, 3))
    target += 3 * source
    weights = np.ones(8)
    weights[0], weights[1] = times, 0
    rows = [0] * times + list(range(2, 8))
    assert same(procrustes(source, target, weights), procrustes(source[rows], target[rows]), 1e-7)


@given(seeds)
def test_procrustes_never_mirrors(seed):
    source = np.random.default_rng(seed).normal(size=(10, 3))
    try:
        found = procrustes(source, source * (1, 1, -1))
    except GeometryError:
        return
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


def test_a_mirrored_set_is_fitted_as_umeyama_says():
    # Umeyama's own example (1991, section IV): a triangle and its mirror image.
    source = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    target = np.array([[0.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    found = procrustes(source, target)
    # In the plane no rotation does it; in space a half turn about y does, exactly.
    assert np.allclose(found.apply(source), target)
    assert np.allclose(found.rotation, np.diag([-1.0, 1.0, -1.0]))


def test_flat_points_are_enough():
    truth = random_similarity(3)
    flat = POINTS * (1, 1, 0)
    assert same(procrustes(flat, truth.apply(flat)), truth, 1e-7)


def test_without_scale_the_motion_is_rigid():
    truth = random_similarity(4)
    found = procrustes(POINTS, truth.apply(POINTS), with_scale=False)
    assert found.scale == 1.0
    assert np.allclose(found.rotation, truth.rotation)
    assert robust_procrustes(POINTS, POINTS + 1.0, with_scale=False).scale == 1.0


LINE = np.outer(np.arange(10.0), [1.0, 2.0, -1.0]) + 5.0


@pytest.mark.parametrize(
    ("source", "target", "weights"),
    [
        (POINTS[:2], POINTS[:2], None),
        (LINE, LINE, None),
        (np.ones((10, 3)), np.ones((10, 3)), None),
        (POINTS, np.ones((50, 3)), None),
        (POINTS, POINTS, np.zeros(50)),
        (np.full((10, 3), np.nan), LINE, None),
        (POINTS[:0], POINTS[:0], None),
    ],
    ids=["two points", "a line", "one place", "all onto one place", "no weight", "all nan", "none"],
)
def test_points_that_leave_it_open_are_said_to(source, target, weights):
    with pytest.raises(GeometryError, match="not determined"):
        procrustes(source, target, weights)
    assert robust_procrustes(source, target, weights) is None


@pytest.mark.parametrize(
    ("source", "target", "weights", "named"),
    [
        (POINTS, POINTS[:10], None, "matched"),
        (POINTS[:, :2], POINTS[:, :2], None, "matched"),
        (POINTS, POINTS, np.ones(3), "one weight a point"),
        (POINTS, POINTS, -np.ones(50), "weights are 0 or more"),
    ],
)
def test_wrong_shapes_and_weights_are_named(source, target, weights, named):
    for fit in (procrustes, robust_procrustes):
        with pytest.raises(GeometryError, match=named):
            fit(source, target, weights)


def test_points_that_are_not_finite_count_for_nothing():
    truth = random_similarity(5)
    target = truth.apply(POINTS)
    target[3], target[7, 1] = np.inf, np.nan
    assert same(procrustes(POINTS, target), truth, 1e-7)
    assert same(robust_procrustes(POINTS, target), truth, 1e-7)


@settings(max_examples=50)
@given(seeds, st.floats(0.0, 0.35))
def test_outliers_do_not_drag_the_robust_fit_along(seed, share):
    rng = np.random.default_rng(seed)
    truth, source = random_similarity(seed), rng.normal(size=(200, 3))
    noise = 0.01
    target = truth.apply(source + rng.normal(scale=noise, size=source.shape))
    wrong = rng.random(200) < share
    target[wrong] += truth.scale * rng.uniform(-1, 1, (200, 3))[wrong] * 20
    error = np.abs(robust_procrustes(source, target).apply(source) - truth.apply(source)).max() / truth.scale
    assert error < 1.5 * noise
    if wrong.sum() > 20:
        assert np.abs(procrustes(source, target).apply(source) - truth.apply(source)).max() / truth.scale > 5 * noise
