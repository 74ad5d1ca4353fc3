"""The optimum: its derivatives, its gauge, and that it is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.alignment import align, objective, world_points
from dust3r_ros.alignment.linear_system import Layout, LinearSystem, make_layout
from dust3r_ros.alignment.optimum import COARSE, FINE, Given, in_frame, settle
from dust3r_ros.alignment.pair_motions import PairMotions
from dust3r_ros.alignment.priors import Priors
from dust3r_ros.alignment.problem import Problem, State, build_problem
from dust3r_ros.alignment.refine import evaluate, mean_scale, model, moved, turned
from dust3r_ros.alignment.spanning_tree import score, spanning_forest
from dust3r_ros.alignment.start import Sides, place_branch, start
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.scene_graph import SceneGraph
from dust3r_ros.simulation import SimulatedView, room_sequence

COUNT = 6


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(frames=30, width=80, height=60, seed=3))[::5]


@pytest.fixture(scope="module")
def scene(views: list[SimulatedView]) -> tuple[list[PairPrediction], dict[int, tuple[float, float]], float]:
    """Noisy pairs, principal points, the true focal length."""
    estimator = SimulatedEstimator(views, noise=0.03, outliers=0.02)
    tokens = {index: estimator.encode(view.image, view.camera) for index, view in enumerate(views)}
    predictions = estimator.estimate(tokens, SceneGraph.parse("swin-2").pairs(range(COUNT), True))
    return predictions, {n: (t.camera.cx, t.camera.cy) for n, t in tokens.items()}, tokens[0].camera.fx


@pytest.fixture(scope="module")
def problem(scene) -> tuple[Problem, State]:
    predictions, centres, _ = scene
    found, pairs, scores = (
        build_problem(predictions, range(COUNT), centres, 150),
        [(p.i, p.j) for p in predictions],
        list(map(score, predictions)),
    )
    return found, start(found, place_branch(spanning_forest(pairs, scores)[0], Sides(found, pairs), scores, {}))


def layout_of(problem: Problem, shared: bool = False) -> Layout:
    group = np.zeros(COUNT, int) if shared else np.arange(COUNT)
    return make_layout(problem, np.arange(COUNT) == 0, np.zeros(COUNT, bool), group)


@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_is_the_objectives(problem, shared: bool) -> None:
    """Against differences of the smoothed objective, the depths following: at their optimum they do not change its slope."""
    found, state = problem
    layout = layout_of(found, shared)
    if shared:
        state = replace(state, focal=np.full_like(state.focal, state.focal.mean()))
    eps = 0.05
    for _ in range(60):
        state, _ = evaluate(found, state, eps)

    def cost(x: np.ndarray) -> float:
        candidate, value = evaluate(found, moved(state, x, layout), eps)
        return value * mean_scale(candidate)

    gradient = LinearSystem(model(found, state, eps, 0.0), layout).gradient
    rng = np.random.default_rng(0)
    for k in [*rng.choice(layout.size, 25, replace=False), layout.size - 1]:
        step = np.zeros(layout.size)
        step[k] = 1e-5
        assert gradient[k] == pytest.approx((cost(step) - cost(-step)) / 2e-5, rel=2e-3, abs=1e-6), k


def test_moving_the_whole_scene_changes_nothing(problem) -> None:
    found, state = problem
    frame = Similarity(1.7, turned(np.array([[0.3, -0.8, 0.5]]))[0], np.array([3.0, -1.0, 2.0]))
    moved_value, value = evaluate(found, in_frame(state, frame), 1.7 * 0.01)[1], evaluate(found, state, 0.01)[1]
    assert moved_value == pytest.approx(value, rel=1e-9)


def test_every_factorisation_gives_the_same_step(problem, monkeypatch: pytest.MonkeyPatch) -> None:
    found, state = problem
    state, _ = evaluate(found, state, 0.05)
    steps, kinds = [], []
    for dense, band, full in ((10_000, 0.0, 0.0), (0, 1.0, 0.0), (0, -1.0, 1e9)):
        monkeypatch.setattr("dust3r_ros.alignment.linear_system.DENSE", dense)
        monkeypatch.setattr("dust3r_ros.alignment.linear_system.BANDED", band)
        monkeypatch.setattr("dust3r_ros.alignment.linear_system.FULL", full)
        layout = layout_of(found)
        kinds.append(layout.kind)
        steps.append((layout, LinearSystem(model(found, state, 0.05, 0.5), layout).step(1e-4, free_scale=False)))
    assert kinds == ["dense", "banded", "sparse"]
    for layout, step in steps[1:]:
        assert step is not None
        for name in ("pair", "pose", "focal"):
            first = getattr(steps[0][0], name)
            np.testing.assert_allclose(step[getattr(layout, name)], steps[0][1][first], rtol=1e-5, atol=1e-8)
        assert abs(step[layout.is_scale].sum()) < 1e-9


def test_it_is_an_optimum(scene) -> None:
    """The objective over all pixels is below the tree's, and no small change of poses, focal lengths or depths lowers it much."""
    predictions, centres, true_focal = scene
    found = align(predictions, principal_points=centres)
    pairs = [pair for pair in found.pair_similarities if pair is not None]
    assert len(pairs) == len(predictions)

    def cost(poses: np.ndarray, focals: np.ndarray, depths: list[torch.Tensor]) -> float:
        points = {n: world_points(depths[n], poses[n], float(focals[n]), centres[n]) for n in range(COUNT)}
        return objective(predictions, points, pairs)

    assert cost(found.poses, found.focals, found.depths) == pytest.approx(found.objective, rel=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(12):
        poses = found.poses.copy()
        poses[:, :3, 3] += rng.normal(0, 0.01, (COUNT, 3)) * float(found.depths[0].median())
        assert cost(poses, found.focals, found.depths) > found.objective
        assert cost(found.poses, found.focals * np.exp(rng.normal(0, 0.01, COUNT)), found.depths) > found.objective
        assert cost(found.poses, found.focals, [depth * float(np.exp(rng.normal(0, 0.01))) for depth in found.depths]) > found.objective
    np.testing.assert_allclose(found.focals, true_focal, rtol=2e-3)


def test_the_optimum_is_several_times_nearer_to_the_truth_than_the_tree(scene, views: list[SimulatedView]) -> None:
    predictions, centres, _ = scene
    truth = np.stack([view.pose[:3, 3] for view in views])

    def error(positions: np.ndarray) -> float:
        from dust3r_ros.geometry import procrustes

        return float(np.linalg.norm(procrustes(positions, truth).apply(positions) - truth))

    tree, found = align(predictions, principal_points=centres, refine=False), align(predictions, principal_points=centres)
    assert found.objective < tree.objective
    assert error(found.poses[:, :3, 3]) < 0.4 * error(tree.poses[:, :3, 3])


def test_from_far_off_it_comes_back(problem) -> None:
    """Poses turned by up to 15 degrees and focal lengths a fifth too long end at the same objective."""
    found, state = problem
    given = Given({}, np.zeros(COUNT, bool), np.arange(COUNT), Priors({}, {}, [], {}), PairMotions({}, [], []))
    best, _ = settle(found, state, given, (*COARSE, *FINE), 0.0)
    spin = turned(0.15 * np.random.default_rng(0).normal(size=(COUNT, 3)))
    spin[0] = np.eye(3)
    off = replace(state, rotation=spin @ state.rotation, focal=state.focal * 1.2)
    again, history = settle(found, off, given, (*COARSE, *FINE), 0.0)
    assert evaluate(found, again, 1e-3)[1] == pytest.approx(evaluate(found, best, 1e-3)[1], rel=2e-3)
    assert history[-1].objective < history[0].objective


def test_known_poses_and_a_shared_focal_length(scene, views: list[SimulatedView]) -> None:
    predictions, centres, true_focal = scene
    shared = align(predictions, principal_points=centres, shared_focal=True)
    assert len(set(shared.focals.tolist())) == 1
    assert shared.focals[0] == pytest.approx(true_focal, rel=2e-3)
    every = {n: view.pose for n, view in enumerate(views)}
    known = align(predictions, principal_points=centres, poses=every)
    np.testing.assert_array_equal(known.poses, np.stack(list(every.values())))
    for n, view in enumerate(views):  # known poses never make the depths worse
        truth = torch.from_numpy(view.depth)
        for found in (known, shared):
            scale = float((truth[found.depths[n] > 0] / found.depths[n][found.depths[n] > 0]).median()) if found is shared else 1.0
            seen = found.depths[n] > 0
            assert float(((scale * found.depths[n] - truth).abs() / truth)[seen].median()) < 0.02


def test_the_same_input_gives_the_same_result(scene) -> None:
    predictions, centres, _ = scene
    first, second = (align(predictions, principal_points=centres) for _ in range(2))
    np.testing.assert_array_equal(first.poses, second.poses)
    assert first.objective == second.objective
    assert all(torch.equal(a, b) for a, b in zip(first.depths, second.depths, strict=True))


def test_images_of_different_sizes_and_pixels_that_are_not_finite(scene) -> None:
    predictions, centres, _ = scene
    cut = []
    for p in predictions:
        changed = {}
        for side, image in (("i", p.i), ("j", p.j)):
            rows = 40 if image == 2 else 60
            for name in (f"points_{side}", f"confidence_{side}"):
                changed[name] = getattr(p, name)[:rows].clone()
            changed[f"points_{side}"][3, 5] = torch.nan
            if p.j == 4 and side == "j":
                changed["points_j"][10, 20] = torch.inf  # other pairs know this one
            changed[f"confidence_{side}"][3, 5] = 1.0
        cut.append(replace(p, **changed))
    found = align(cut, principal_points=centres)
    assert [tuple(depth.shape) for depth in found.depths] == [(40, 80) if n == 2 else (60, 80) for n in range(COUNT)]
    assert np.isfinite(found.poses).all()
    assert all(bool(torch.isfinite(depth).all()) and float(depth[3, 5]) == 0.0 for depth in found.depths)
    assert float(found.depths[4][10, 20]) > 0
