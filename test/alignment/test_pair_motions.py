"""What pairs say of their own cameras places the images far better than points whose depth bends, and can be wrong without doing harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.pair_simulator import PairErrors, PairSimulator

from dust3r_ros.alignment import Aligner, Alignment, align
from dust3r_ros.alignment.linear_system import DENSE, Layout, LinearSystem, make_layout
from dust3r_ros.alignment.optimum import Given, settle
from dust3r_ros.alignment.pair_motions import PairMotions, motion_of
from dust3r_ros.alignment.priors import Priors
from dust3r_ros.alignment.problem import Problem, State, build_problem
from dust3r_ros.alignment.refine import model, moved
from dust3r_ros.alignment.spanning_tree import score, spanning_forest
from dust3r_ros.alignment.start import Sides, place_branch, start
from dust3r_ros.estimators import PairMotion, PairPrediction
from dust3r_ros.geometry import Similarity, procrustes
from dust3r_ros.mapping.scene_graph import SceneGraph
from dust3r_ros.simulation import circle_sequence

COUNT = 8
BENT = PairErrors(noise=0.15, cells=(2, 2), motion=(0.002, 0.002))


@pytest.fixture(scope="module")
def views() -> PairSimulator:
    return PairSimulator.of(circle_sequence(COUNT, 80, 60), BENT, seed=3)


@pytest.fixture(scope="module")
def predictions(views: PairSimulator) -> list[PairPrediction]:
    return views.pairs(SceneGraph.parse("swin-3").pairs(range(COUNT), True))


@pytest.fixture(scope="module")
def centres(views: PairSimulator) -> dict[int, tuple[float, float]]:
    return dict.fromkeys(range(COUNT), (views.camera.cx, views.camera.cy))


def without(predictions: Sequence[PairPrediction]) -> list[PairPrediction]:
    return [replace(p, motion=None) for p in predictions]


def path_error(positions: np.ndarray, views: PairSimulator) -> float:
    """Metres, root mean square after a similarity."""
    true = np.stack(views.poses)[:, :3, 3]
    return float(np.sqrt(((procrustes(positions, true).apply(positions) - true) ** 2).sum(1).mean()))


def aligned(predictions: Sequence[PairPrediction], views: PairSimulator, centres: dict[int, tuple[float, float]]) -> Alignment:
    return align(predictions, dict.fromkeys(range(COUNT), views.camera.fx), principal_points=centres)


def test_they_place_the_cameras_where_depths_bend(views, predictions, centres) -> None:
    bent, held = aligned(without(predictions), views, centres), aligned(predictions, views, centres)
    assert path_error(held.poses[:, :3, 3], views) < 0.35 * path_error(bent.poses[:, :3, 3], views)


def test_one_that_is_wrong_counts_little(views, predictions, centres) -> None:
    said = predictions[4].motion
    assert said is not None
    wrong = replace(said, translation=-said.translation)
    spoilt = [replace(p, motion=wrong) if at == 4 else p for at, p in enumerate(predictions)]
    good, bad = aligned(predictions, views, centres), aligned(spoilt, views, centres)
    assert path_error(bad.poses[:, :3, 3], views) < 1.5 * path_error(good.poses[:, :3, 3], views)


def online(predictions: Sequence[PairPrediction], views: PairSimulator) -> Aligner:
    aligner = Aligner()
    for n in range(COUNT):
        new = [p for p in predictions if max(p.i, p.j) == n]
        assert aligner.add(n, new, views.camera.fx, (views.camera.cx, views.camera.cy)) is not None
    return aligner


def test_the_window_heeds_them_and_the_whole_graph_keeps_to_them(views, predictions) -> None:
    bent, held = online(without(predictions), views), online(predictions, views)

    def error(aligner: Aligner) -> float:
        return path_error(np.stack([aligner.positions[n] for n in range(COUNT)]), views)

    assert error(held) < 0.5 * error(bent)
    before = error(held)
    for n in range(COUNT):
        held.retire(n)
    held.align()
    assert error(held) < 1.3 * before  # by links alone


def test_the_other_way_round_it_is_the_inverse() -> None:
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    said = PairMotion(turn, np.array([1.0, 2.0, 3.0]), 0.1, 0.2)
    prediction = replace(PairSimulator.of(circle_sequence(2, 16, 16)).pair(0, 1), motion=said)
    assert motion_of(prediction, (0, 1)) is said
    back = motion_of(prediction, (1, 0))
    assert back is not None
    there = Similarity(1.0, said.rotation, said.translation)
    np.testing.assert_allclose(there.apply(Similarity(1.0, back.rotation, back.translation).apply(np.eye(3))), np.eye(3), atol=1e-12)
    assert (back.sigma_turn, back.sigma_move) == (0.1, 0.2)


def started(predictions: Sequence[PairPrediction], centres: dict[int, tuple[float, float]]) -> tuple[Problem, State]:
    pairs, scores = [(p.i, p.j) for p in predictions], list(map(score, predictions))
    problem = build_problem(predictions, range(COUNT), centres, 100)
    state = start(problem, place_branch(spanning_forest(pairs, scores)[0], Sides(problem, pairs), scores, {}))
    given = Given({}, np.zeros(COUNT, bool), np.arange(COUNT), Priors({}, {}, [], {}), PairMotions({}, []))
    return problem, settle(problem, state, given, (), 0.0)[0]


def pull(motions: PairMotions, problem: Problem, state: State, layout: Layout) -> np.ndarray:
    equations = model(problem, state, 0.05, 0.0)
    plain, system = LinearSystem(equations, layout), LinearSystem(equations, layout)
    motions.add_to(system, layout, state, 1.0)
    return system.gradient - plain.gradient


def test_their_gradient_is_their_costs(predictions, centres) -> None:
    """Against differences: both poses and the pair's scale; where a motion is doubted too."""
    problem, state = started(predictions, centres)
    motions = PairMotions({n: n for n in range(COUNT)}, predictions)
    layout = make_layout(problem, np.zeros(COUNT, bool), np.zeros(COUNT, bool), np.arange(COUNT))
    own = pull(motions, problem, state, layout)
    assert np.count_nonzero(own) == 6 * COUNT + len(predictions)
    for k in np.nonzero(own)[0]:
        step = np.zeros(layout.size)
        step[k] = 1e-6
        slope = (motions.cost(moved(state, step, layout)) - motions.cost(moved(state, -step, layout))) / 2e-6
        assert own[k] == pytest.approx(slope, rel=0.05, abs=0.02 * np.abs(own).max())


def test_every_kind_of_system_takes_them_alike(predictions, centres, monkeypatch) -> None:
    """Dense, banded and sparse ones give the same step."""
    problem, state = started(predictions, centres)
    motions, equations = PairMotions({n: n for n in range(COUNT)}, predictions), model(problem, state, 0.05, 0.0)
    steps = []
    for kind, dense, banded, full in (("dense", DENSE, 0.25, 0.3), ("banded", 0, 1.0, 0.3), ("sparse", 0, 0.0, 2.0)):
        monkeypatch.setattr("dust3r_ros.alignment.linear_system.DENSE", dense)
        monkeypatch.setattr("dust3r_ros.alignment.linear_system.BANDED", banded)
        monkeypatch.setattr("dust3r_ros.alignment.linear_system.FULL", full)
        layout = make_layout(problem, np.arange(COUNT) == 0, np.zeros(COUNT, bool), np.arange(COUNT))
        assert layout.kind == kind
        system = LinearSystem(equations, layout)
        motions.add_to(system, layout, state, 1.0)
        step = system.step(1e-6, free_scale=False)
        assert step is not None
        steps.append(moved(state, step, layout))
    for other in steps[1:]:
        np.testing.assert_allclose(other.position, steps[0].position, atol=1e-6)
        np.testing.assert_allclose(other.pair_scale, steps[0].pair_scale, rtol=1e-6)
