"""What is known beforehand, for certain or nearly: it comes back, pulls as much as it should, and never makes the depths worse."""

from __future__ import annotations

import numpy as np
import pytest
from support.pair_simulator import PairErrors, PairSimulator

from dust3r_ros.alignment import Alignment, FocalPrior, MotionPrior, PosePrior, PriorError, align
from dust3r_ros.alignment.linear_system import LinearSystem, make_layout
from dust3r_ros.alignment.optimum import Given, settle
from dust3r_ros.alignment.pair_motions import PairMotions
from dust3r_ros.alignment.priors import Priors
from dust3r_ros.alignment.problem import build_problem
from dust3r_ros.alignment.refine import model, moved
from dust3r_ros.alignment.spanning_tree import score, spanning_forest
from dust3r_ros.alignment.start import Sides, place_branch, start
from dust3r_ros.simulation import circle_sequence

COUNT = 8
SURE = np.diag([1e-8] * 6)


@pytest.fixture(scope="module")
def views() -> PairSimulator:
    return PairSimulator.of(circle_sequence(COUNT, 80, 60), PairErrors(noise=0.05), seed=3)


def position_error(found: Alignment, views: PairSimulator) -> float:
    """Metres, without any alignment: the frame and the scale are those of what was known."""
    return float(np.linalg.norm(found.poses[:, :3, 3] - np.stack(views.poses)[:, :3, 3], axis=1).max())


def depth_error(found: Alignment, views: PairSimulator) -> float:
    """Median relative error, metric."""
    return float(np.median([np.median(np.abs(d.numpy() / views.depths[n] - 1)) for n, d in enumerate(found.depths)]))


def test_sure_pose_priors_are_as_good_as_fixed_poses(views, predictions, centres) -> None:
    fixed = align(predictions, poses=dict(enumerate(views.poses)), principal_points=centres)
    prior = align(predictions, poses={n: PosePrior(p, SURE) for n, p in enumerate(views.poses)}, principal_points=centres)
    assert position_error(fixed, views) == 0.0
    assert position_error(prior, views) < 2e-3
    assert depth_error(prior, views) == pytest.approx(depth_error(fixed, views), abs=2e-3)
    assert depth_error(fixed, views) < 0.02


def test_priors_that_are_hardly_known_hardly_pull(views, predictions, centres) -> None:
    """Poses off by half a metre, said to be off by a hundred metres, give frame and scale but leave the shape alone."""
    rng = np.random.default_rng(0)
    off = {n: pose.copy() for n, pose in enumerate(views.poses)}
    for pose in off.values():
        pose[:3, 3] += rng.normal(0, 0.2, 3)
    free = align(predictions, principal_points=centres)
    loose = align(predictions, poses={n: PosePrior(p, np.diag([1e4] * 6)) for n, p in off.items()}, principal_points=centres)
    assert loose.objective == pytest.approx(free.objective, rel=1e-3)


def test_a_prior_between_both_ends_in_between(views, predictions, centres) -> None:
    """The stronger the pull, the nearer to what it says."""
    said = views.poses[4].copy()
    said[:3, 3] += [0.3, 0.0, 0.0]
    others = {n: PosePrior(p, SURE) for n, p in enumerate(views.poses) if n in (0, 1, 2)}
    distances = []
    for sigma in (1.0, 0.05, 0.001):
        found = align(predictions, poses={**others, 4: PosePrior(said, np.diag([sigma**2] * 6))}, principal_points=centres)
        distances.append(float(np.linalg.norm(found.poses[4, :3, 3] - said[:3, 3])))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.02
    assert distances[0] > 0.15


def test_only_positions_may_be_known(views, predictions, centres) -> None:
    """As from a satellite receiver: nothing said of the rotation."""
    positions = np.diag([np.inf] * 3 + [1e-6] * 3)
    wild = {n: PosePrior(pose @ np.diag([-1.0, -1.0, 1.0, 1.0]), positions) for n, pose in enumerate(views.poses)}
    found = align(predictions, poses=wild, principal_points=centres)
    assert position_error(found, views) < 0.02
    for n, pose in enumerate(views.poses):
        np.testing.assert_allclose(found.poses[n, :3, :3], pose[:3, :3], atol=0.05)


def test_odometry_gives_the_scale_and_lowers_the_error(views, predictions, centres) -> None:
    rng = np.random.default_rng(1)
    motions = []
    for n in range(COUNT - 1):
        pose = np.linalg.inv(views.poses[n]) @ views.poses[n + 1]
        pose[:3, 3] *= 1 + 0.01 * rng.normal()
        motions.append(MotionPrior(n, n + 1, pose, np.diag([1e-5] * 3 + [1e-4] * 3)))
    free, held = align(predictions, principal_points=centres), align(predictions, motions=motions, principal_points=centres)

    def lengths(found: Alignment) -> np.ndarray:
        return np.linalg.norm(np.diff(found.poses[:, :3, 3], axis=0), axis=1)

    true = np.linalg.norm(np.diff(np.stack(views.poses)[:, :3, 3], axis=0), axis=1)
    np.testing.assert_allclose(lengths(held), true, rtol=0.02)
    ratio = lengths(free) / true
    assert np.abs(lengths(held) / true - 1).max() < np.abs(ratio / np.median(ratio) - 1).max()
    assert depth_error(held, views) < 0.03


def test_a_motion_between_images_that_no_pair_joins() -> None:
    """The ends of a long chain, whose system is a band: it closes as the motion says."""
    count = 60
    views = PairSimulator.of(circle_sequence(count, 32, 24), PairErrors(noise=0.05), seed=3)
    pairs = views.pairs([(n, n + 1) for n in range(count - 1)])
    pose = np.linalg.inv(views.poses[1]) @ views.poses[-2]
    found = align(pairs, motions=[MotionPrior(1, count - 2, pose, np.diag([1e-8] * 6))])
    np.testing.assert_allclose(np.linalg.inv(found.poses[1]) @ found.poses[-2], pose, atol=0.02)


def test_a_focal_length_that_is_nearly_known(views, predictions, centres) -> None:
    true = views.camera.fx
    pulled = align(predictions, focals={2: FocalPrior(1.3 * true, 1e-4)}, principal_points=centres)
    assert pulled.focals[2] == pytest.approx(1.3 * true, rel=0.01)
    loose = align(predictions, focals={2: FocalPrior(1.3 * true, 10.0)}, principal_points=centres)
    assert loose.focals[2] == pytest.approx(true, rel=0.05)


def test_known_intrinsics_never_make_the_depths_worse(views, predictions, centres) -> None:
    free = align(predictions, poses=dict(enumerate(views.poses)), principal_points=centres)
    known = align(predictions, dict.fromkeys(range(COUNT), views.camera.fx), dict(enumerate(views.poses)), centres)
    assert depth_error(known, views) <= depth_error(free, views) + 1e-3


@pytest.mark.parametrize(
    "covariance", [np.zeros((6, 6)), np.full((6, 6), np.nan), np.eye(5), np.diag([1.0, 1, 1, 1, 1, -1]), np.eye(6) + 5 * np.eye(6, k=1)]
)
def test_what_is_no_covariance_is_refused_by_name(predictions, covariance: np.ndarray) -> None:
    with pytest.raises(PriorError, match="image 0's pose"):
        align(predictions, poses={0: PosePrior(np.eye(4), covariance), 1: np.eye(4)})


def test_their_gradient_is_their_costs(predictions, centres) -> None:
    """Against differences, pose and motion and focal length together."""
    pairs, scores = [(p.i, p.j) for p in predictions], list(map(score, predictions))
    problem = build_problem(predictions, range(COUNT), centres, 100)
    state = start(problem, place_branch(spanning_forest(pairs, scores)[0], Sides(problem, pairs), scores, {}))
    state, _ = settle(
        problem, state, Given({}, np.zeros(COUNT, bool), np.arange(COUNT), Priors({}, {}, [], {}), PairMotions({}, [], [])), (), 0.0
    )
    rng = np.random.default_rng(2)
    poses = state.poses
    poses[:, :3, 3] += rng.normal(0, 1e-3, (COUNT, 3))
    motion = np.linalg.inv(poses[1]) @ poses[3]
    motion[:3, 3] += 1e-3
    root = rng.normal(size=(6, 6))
    covariance = root @ root.T + np.eye(6)
    at = {n: n for n in range(COUNT)}
    priors = Priors(at, {2: PosePrior(poses[2], covariance)}, [MotionPrior(1, 3, motion, covariance)], {5: FocalPrior(70.0, 0.1)})
    layout = make_layout(problem, np.zeros(COUNT, bool), np.zeros(COUNT, bool), np.arange(COUNT))
    equations = model(problem, state, 0.05, 0.0)
    without, system = LinearSystem(equations, layout), LinearSystem(equations, layout)
    priors.add_to(system, layout, state, 1.0)
    own = system.gradient - without.gradient
    assert np.count_nonzero(own) == 6 + 12 + 1
    for k in np.nonzero(own)[0]:
        step = np.zeros(layout.size)
        step[k] = 1e-6
        slope = (priors.cost(moved(state, step, layout)) - priors.cost(moved(state, -step, layout))) / 2e-6
        assert own[k] == pytest.approx(slope, rel=0.02, abs=1e-5)
