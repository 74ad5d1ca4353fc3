"""What pairs say of their own cameras places the images far better than points whose depth bends, and can be wrong without doing harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.pair_simulator import PairErrors, PairSimulator

from dust3r_ros.alignment import Aligner, Alignment, align
from dust3r_ros.alignment.linear_system import DENSE, Layout, LinearSystem, make_layout
from dust3r_ros.alignment.link import Side, make_link
from dust3r_ros.alignment.pair_motions import SCALE, PairMotions, SaidMotion, reversed_motion
from dust3r_ros.alignment.problem import Problem, State, build_problem
from dust3r_ros.alignment.refine import model, moved
from dust3r_ros.alignment.spanning_tree import score, spanning_forest
from dust3r_ros.alignment.start import Sides, place_branch, start
from dust3r_ros.estimators import PairMotion, PairPrediction
from dust3r_ros.geometry import Similarity, procrustes
from dust3r_ros.simulation import circle_sequence

COUNT = 8
BENT = PairErrors(noise=0.15, cells=(2, 2), motion=(0.002, 0.002))


@pytest.fixture(scope="module")
def views() -> PairSimulator:
    return PairSimulator.of(circle_sequence(COUNT, 80, 60), BENT, seed=3)


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


def test_those_that_are_wrong_count_little(views, predictions, centres) -> None:
    """Two couples' cameras are told the wrong way about, both ways round, as sure as the others'."""
    spoilt = [_turned_back(p) if {p.i, p.j} in ({3, 4}, {5, 6}) else p for p in predictions]
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


def test_a_link_does_not_heed_what_the_scene_contradicts(views, predictions) -> None:
    """One pair's cameras are told the wrong way about, both ways round, as sure as the others'."""
    wrong = [_turned_back(p) if {p.i, p.j} == {3, 4} else p for p in predictions]
    errors = []
    for said in (predictions, wrong):
        aligner = online(said, views)
        for n in range(COUNT):
            aligner.retire(n)
        aligner.align()
        errors.append(path_error(np.stack([aligner.positions[n] for n in range(COUNT)]), views))
    assert errors[1] < 2.0 * errors[0] + 1e-3


def _turned_back(prediction: PairPrediction) -> PairPrediction:
    assert prediction.motion is not None
    return replace(prediction, motion=replace(prediction.motion, translation=-prediction.motion.translation))


def test_a_link_says_what_the_motion_says_in_the_keyframes_own_units() -> None:
    """Keyframes in units of their own, the pair in a third; the points alone say the same, less surely."""
    rng = np.random.default_rng(4)
    turn = Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix()
    motion = PairMotion(turn, np.array([0.4, -0.1, 0.2]), 0.001, 0.001)
    in_i = rng.uniform([-1, -1, 2], [1, 1, 4], (200, 3)).T  # the pair's unit
    in_j = turn.T @ (rng.uniform([-1, -1, 2], [1, 1, 4], (200, 3)).T - motion.translation[:, None])
    sides = (Side(2.0 * in_i, in_i, np.ones(200)), Side(5.0 * in_j, turn @ in_j + motion.translation[:, None], np.ones(200)))
    alone, link = make_link(0, 1, *sides), make_link(0, 1, *sides, motion=SaidMotion(motion, 1.0))
    assert alone is not None
    assert link is not None
    for found in (alone, link):
        np.testing.assert_allclose(found.relative.rotation, turn, atol=1e-6)
        np.testing.assert_allclose(found.relative.translation, 2.0 * motion.translation, atol=1e-5)
        assert found.relative.scale == pytest.approx(2.0 / 5.0)
    more = link.information - alone.information
    np.testing.assert_allclose(more[:3, :3], np.eye(3) / 0.001**2, rtol=1e-3, atol=1.0)
    np.testing.assert_allclose(more[6], 0.0, atol=1e-6 * np.abs(more).max())
    moved = np.linalg.inv(more[3:6, 3:6])
    across = np.linalg.svd(motion.rotation.T @ motion.translation[:, None])[0][:, 1]  # the length is no surer than the pair's unit
    assert across @ moved @ across == pytest.approx((5.0 * 0.001) ** 2, rel=1e-3)
    assert np.linalg.eigvalsh(moved).max() > 10 * across @ moved @ across


def test_the_other_way_round_it_is_the_inverse() -> None:
    turn = Rotation.from_rotvec([0.0, 0.0, 0.3]).as_matrix()
    said = SaidMotion(PairMotion(turn, np.array([1.0, 2.0, 3.0]), 0.1, 0.2), 0.5)
    back = reversed_motion(said)
    there, here = (Similarity(1.0, one.motion.rotation, one.motion.translation) for one in (said, back))
    np.testing.assert_allclose(there.apply(here.apply(np.eye(3))), np.eye(3), atol=1e-12)
    assert (back.motion.sigma_turn, back.motion.sigma_move, back.share) == (0.1, 0.2, 0.5)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"rotation": np.full((3, 3), np.nan)}, {"rotation": np.zeros((3, 3))}, {"rotation": -np.eye(3)},
        {"translation": np.array([0.0, np.inf, 0.0])}, {"sigma_turn": 0.0}, {"sigma_move": -1.0}, {"sigma_move": np.inf},
    ],
)  # fmt: skip
def test_what_is_no_motion_is_passed_over(views, predictions, centres, spoilt: dict[str, object]) -> None:
    """Its pair's points stay."""
    broken = [p if p.motion is None else replace(p, motion=replace(p.motion, **spoilt)) for p in predictions]
    assert aligned(broken, views, centres).objective == pytest.approx(aligned(without(predictions), views, centres).objective)
    aligner = online(broken, views)
    assert aligner.retire(0) is not None
    aligner.align()


def started(predictions: Sequence[PairPrediction], centres: dict[int, tuple[float, float]]) -> tuple[Problem, State]:
    pairs, scores = [(p.i, p.j) for p in predictions], list(map(score, predictions))
    problem = build_problem(predictions, range(COUNT), centres, 100)
    return problem, start(problem, place_branch(spanning_forest(pairs, scores)[0], Sides(problem, pairs), scores, {}))


def of(predictions: Sequence[PairPrediction]) -> PairMotions:
    return PairMotions({n: n for n in range(COUNT)}, [(p.i, p.j) for p in predictions], [p.motion for p in predictions])


def pull(motions: PairMotions, problem: Problem, state: State, layout: Layout) -> np.ndarray:
    equations = model(problem, state, 0.05, 0.0)
    plain, system = LinearSystem(equations, layout), LinearSystem(equations, layout)
    motions.add_to(system, layout, state, 1.0)
    return system.gradient - plain.gradient


@pytest.mark.parametrize(("sigmas", "doubted"), [(60.0, False), (1.0, True)])
def test_their_gradient_is_their_costs(predictions, centres, sigmas: float, doubted: bool) -> None:
    """Against differences: rotations, positions and scales, each kind by its own size; where hardly any is doubted, and where most are."""
    problem, state = started(predictions, centres)
    wide = [replace(p, motion=replace(p.motion, sigma_turn=0.01 * sigmas, sigma_move=0.03 * sigmas)) for p in predictions]
    motions = of(wide)
    assert (np.median(motions.shares(state)) < 0.5) == doubted
    layout = make_layout(problem, np.zeros(COUNT, bool), np.zeros(COUNT, bool), np.arange(COUNT))
    own, slopes = pull(motions, problem, state, layout), np.zeros(layout.size)
    for k in range(layout.size):
        step = np.zeros(layout.size)
        step[k] = 1e-6
        slopes[k] = (motions.cost(moved(state, step, layout)) - motions.cost(moved(state, -step, layout))) / 2e-6
    turns, places = ((layout.pose[:, None] + np.arange(3) + begin).ravel() for begin in (0, 3))
    for kind in (turns, places, layout.pair + SCALE):
        np.testing.assert_allclose(
            own[kind], slopes[kind], atol=0.04 * np.abs(slopes[kind]).max()
        )  # to first order in how far off turns are
    np.testing.assert_allclose(own[layout.pair + SCALE], slopes[layout.pair + SCALE], rtol=1e-4, atol=1e-6 * np.abs(own).max())


def test_every_kind_of_system_takes_them_alike(predictions, centres, monkeypatch) -> None:
    """Dense, banded and sparse ones give the same step."""
    problem, state = started(predictions, centres)
    motions, equations = of(predictions), model(problem, state, 0.05, 0.0)
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
