"""The way over a device, tried on the CPU: there the kernels' twins do the work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.alignment import align, dense, problem
from dust3r_ros.alignment.dense import solve_dense
from dust3r_ros.alignment.problem import State, build_problem, device_of
from dust3r_ros.alignment.refine import evaluate, model
from dust3r_ros.alignment.terms import CompiledTerms, DeviceTerms, terms_of
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.mapping.scene_graph import SceneGraph
from dust3r_ros.simulation import room_sequence

COUNT = 5
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def predictions() -> list[PairPrediction]:
    views = list(room_sequence(frames=25, width=80, height=60, seed=3))[::5]
    estimator = SimulatedEstimator(views, noise=0.02, outliers=0.01)
    tokens = {index: estimator.encode(view.image, view.camera) for index, view in enumerate(views)}
    return estimator.estimate(tokens, SceneGraph.parse("swin-2").pairs(range(COUNT), False))


@pytest.fixture
def state(predictions: list[PairPrediction]) -> State:
    """Any: nothing in it fits."""
    rng, pairs = np.random.default_rng(0), len(predictions)
    turn = np.linalg.qr(np.eye(3) + 0.05 * rng.normal(size=(COUNT + pairs, 3, 3)))[0]
    turn *= np.sign(np.einsum("nii->ni", turn))[:, None]
    return State(
        rotation=turn[:COUNT],
        position=0.1 * rng.normal(size=(COUNT, 3)),
        focal=70 + 5 * rng.random(COUNT),
        pair_rotation=turn[COUNT:],
        pair_translation=0.1 * rng.normal(size=(pairs, 3)),
        pair_scale=1 + rng.random(pairs),
        depth=3 + rng.random((COUNT, 150)),
    )


def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (problem, dense):
        monkeypatch.setattr(module, "device_of", lambda _: CPU)


def test_predictions_on_the_cpu_go_through_the_compiled_loops(predictions: list[PairPrediction]) -> None:
    assert device_of(predictions) is None
    assert device_of([]) is None
    assert isinstance(terms_of(build_problem(predictions, range(COUNT), {}, 10)), CompiledTerms)


def test_both_ways_know_the_same_terms(predictions: list[PairPrediction], state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = build_problem(predictions, range(COUNT), {}, 150)
    on_device(monkeypatch)
    other = build_problem(predictions, range(COUNT), {}, 150)
    for name in ("points", "weight", "pixels", "pair"):
        np.testing.assert_array_equal(getattr(other, name), getattr(compiled, name))
    assert isinstance(terms_of(other.first(100).among([0, 1], [0])), DeviceTerms)
    for anew in (False, True):
        (a, cost), (b, other_cost) = (evaluate(p, state, 0.05, anew=anew) for p in (compiled, other))
        assert other_cost == pytest.approx(cost, rel=1e-9)
        known = np.add.reduceat(compiled.weight, compiled.start[:-1]) > 0
        np.testing.assert_allclose(b.depth[known], a.depth[known], rtol=1e-8)
    one, two = (model(p, a, 0.05, 0.7) for p in (compiled, other))
    for name in ("products", "gradient", "gram", "shared_slope"):
        truth = getattr(one, name)
        exact = 1e-5 if name in ("gram", "shared_slope") else 1e-9  # of float32 rows
        np.testing.assert_allclose(getattr(two, name), truth, rtol=exact, atol=exact * np.abs(truth).max())


def test_every_depth(predictions: list[PairPrediction], state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    found = solve_dense(predictions, range(COUNT), {2: (39.0, 31.0)}, state)
    on_device(monkeypatch)
    other = solve_dense(predictions, range(COUNT), {2: (39.0, 31.0)}, state)
    np.testing.assert_allclose(other.pair_cost, found.pair_cost, rtol=1e-5)
    for n in range(COUNT):
        torch.testing.assert_close(other.confidences[n], found.confidences[n])
        torch.testing.assert_close(other.depths[n], found.depths[n], rtol=1e-3, atol=1e-4)


def test_the_same_scene(predictions: list[PairPrediction], monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = align(predictions)
    on_device(monkeypatch)
    taken: list[int] = []
    work = DeviceTerms.evaluate
    monkeypatch.setattr(DeviceTerms, "evaluate", lambda *arguments: (taken.append(1), work(*arguments))[1])
    other = align(predictions)
    assert taken
    assert other.images == compiled.images
    assert other.dropped == compiled.dropped
    np.testing.assert_allclose(other.poses, compiled.poses, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other.focals, compiled.focals, rtol=1e-6)
    assert other.objective == pytest.approx(compiled.objective, rel=1e-5)
