"""The compiled loops are their torch twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dust3r_ros.alignment.compiled import EDGE, fit_depths, linearise
from dust3r_ros.alignment.compiled_dense import dense_depths, dense_side
from dust3r_ros.alignment.dense import ROUNDS
from dust3r_ros.alignment.problem import Problem, State
from dust3r_ros.alignment.similarity_fit import fit_focal, fit_similarity
from dust3r_ros.alignment.terms import scene_of, sides_of
from dust3r_ros.geometry import Similarity
from dust3r_ros.kernels import alignment_twins as twins

N, S, PAIRS = 3, 40, 5


@pytest.fixture
def scene() -> tuple[Problem, State]:
    """Three images, five pairs, no two of a kind."""
    rng = np.random.default_rng(0)
    ends = [(0, 1), (1, 0), (1, 2), (2, 0), (2, 1)]
    sides = [sorted(e for e, pair in enumerate(ends) if n in pair) for n in range(N)]
    start = np.concatenate([[0], np.cumsum([len(s) for s in sides])])
    total = int(start[-1])
    weight = rng.random((total, S)) * (rng.random((total, S)) > 0.2)
    weight[:, 7] = 0.0  # known to nobody
    problem = Problem(
        images=(0, 1, 2),
        start=start,
        pair=np.concatenate(sides).astype(np.int64),
        points=rng.normal(size=(total, 3, S)) + np.array([[0.0], [0.0], [3.0]]),
        weight=weight,
        pixels=rng.normal(size=(N, 2, S)) * 30,
        pairs=PAIRS,
    )
    turns = np.stack([Rotation.random(random_state=rng).as_matrix() for _ in range(N)])
    state = State(
        rotation=turns,
        position=rng.normal(size=(N, 3)),
        focal=np.array([60.0, 70.0, 90.0]),
        pair_rotation=np.stack([turns[n] for n in (0, 1, 1, 2, 2)]),
        pair_translation=rng.normal(size=(PAIRS, 3)),
        pair_scale=rng.random(PAIRS) + 0.5,
        depth=rng.random((N, S)) + 2.0,
    )
    return problem, state


def arrays(problem: Problem, state: State) -> tuple[np.ndarray, ...]:
    fixed = (problem.start, problem.pair, problem.points, problem.weight, problem.pixels)
    return (*fixed, state.rotation, state.position, state.focal, state.linear, state.pair_translation)


@pytest.mark.parametrize("anew", [False, True])
def test_depths(scene: tuple[Problem, State], anew: bool) -> None:
    problem, state = scene
    depth, cost = state.depth.copy(), np.empty(N)
    fit_depths(*arrays(problem, state), depth, 0.05, 3, anew, cost, 0, N)
    sides, views = sides_of(problem, "cpu"), scene_of(state, "cpu")
    wanted, wanted_cost = twins.fit_depths(sides, views, torch.from_numpy(state.depth), 0.05, 3, anew)
    known = np.arange(S) != 7
    np.testing.assert_allclose(depth[:, known], wanted[:, known], rtol=1e-9)
    np.testing.assert_allclose(cost, wanted_cost, rtol=1e-9)
    assert np.isfinite(depth).all()


def test_second_order(scene: tuple[Problem, State]) -> None:
    problem, state = scene
    sides = len(problem.pair)
    products, gradient = np.empty((sides, 8, 8)), np.empty((sides, 8))
    shared, slope = np.empty((EDGE * sides + N, S), np.float32), np.empty((N, S))
    for begin, end in ((0, 1), (1, N)):  # in parts, as on several threads
        linearise(*arrays(problem, state), state.depth, 0.05, 0.7, products, gradient, shared, slope, begin, end)
    sides, views = sides_of(problem, "cpu"), scene_of(state, "cpu")
    wanted = twins.linearise(sides, views, torch.from_numpy(state.depth), 0.05, 0.7)
    for got, truth in zip((products, gradient, slope), (wanted[0], wanted[1], wanted[3]), strict=True):
        np.testing.assert_allclose(got, truth, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(shared, wanted[2], rtol=1e-5, atol=1e-6)


def test_dense_depths_are_the_least_cost_along_each_ray() -> None:
    """Against a search over a thousand depths; points that are not finite and pixels that nobody knows among them."""
    rng = np.random.default_rng(1)
    pixels, sides = 200, 5
    u, v = (rng.normal(0, 0.3, pixels).astype(np.float32) for _ in range(2))
    true = rng.random(pixels).astype(np.float32) + 1.0
    a, b, w = (np.empty((sides, pixels), np.float32) for _ in range(3))
    most, cost = np.ones(pixels, np.float32), np.zeros(sides)
    confidences = []
    for k in range(sides):
        points = np.stack([u * true, v * true, true], 1) * (1 + 0.05 * rng.standard_t(4, (pixels, 1)))
        points = (points + rng.normal(0, 0.01, points.shape)).astype(np.float32)
        confidence = np.where(rng.random(pixels) < 0.2, 1.0, 1.0 + 20 * rng.random(pixels)).astype(np.float32)
        confidence[3] = 1.0
        if k == 0:
            points[5], points[6, 1], confidence[8] = np.nan, np.inf, np.nan
        confidences.append(np.where(np.isfinite(points).all(1) & np.isfinite(confidence), confidence, 1.0))
        dense_side(points, confidence, np.eye(3, 4, dtype=np.float32), u, v, np.float32(1 + 1e-6), a[k], b[k], w[k], most)
    np.testing.assert_allclose(w, np.log(confidences), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(most, np.max(confidences, axis=0), rtol=1e-6)
    square, depth = u * u + v * v + 1, np.empty(pixels, np.float32)
    rounds = np.array(ROUNDS, np.float32)
    rounds[:, 0] = (1.5 * rounds[:, 0]) ** 2
    dense_depths(a, b, w, square, rounds, depth, cost)
    tried = np.linspace(0.2, 3.0, 4000)[:, None, None]
    least = (w * np.sqrt(square * (tried - a) ** 2 + b)).sum(1).min(0)
    assert cost.sum() < 1.002 * least.sum()
    assert depth[3] == 0.0
    assert np.isfinite(depth).all()


def test_a_similarity_is_found_among_outliers() -> None:
    rng = np.random.default_rng(2)
    true = Similarity(1.7, Rotation.random(random_state=rng).as_matrix(), np.array([0.3, -2.0, 1.0]))
    source = rng.normal(size=(3, 200))
    target = true.scale * true.rotation @ source + true.translation[:, None]
    target[:, :40] = rng.normal(size=(3, 40)) * 5
    rotation, translation, scale, _ = fit_similarity(source, target, np.ones(200), 30)
    assert scale == pytest.approx(1.7, rel=0.01)
    np.testing.assert_allclose(rotation, true.rotation, atol=0.01)
    np.testing.assert_allclose(translation, true.translation, atol=0.05)
    line = np.outer([1.0, 2.0, 3.0], rng.normal(size=200))
    assert fit_similarity(line, line, np.ones(200), 3)[2] == 0.0
    assert fit_similarity(source, target, np.zeros(200), 3)[2] == 0.0


def test_a_focal_length_is_found_among_outliers() -> None:
    rng = np.random.default_rng(3)
    points = np.stack([rng.normal(size=300), rng.normal(size=300), rng.random(300) + 2])
    pixels = 123.0 * points[:2] / points[2]
    pixels[:, :60] += rng.normal(0, 60, (2, 60))
    assert fit_focal(points, np.ones(300), pixels, 20) == pytest.approx(123.0, rel=0.01)
    assert fit_focal(-points, np.ones(300), pixels, 20) == 0.0


def test_a_pixel_that_nobody_knows_weighs_nothing(scene: tuple[Problem, State]) -> None:
    problem, state = scene
    nothing = replace(problem, weight=np.zeros_like(problem.weight))
    depth, cost = state.depth.copy(), np.empty(N)
    fit_depths(*arrays(nothing, state), depth, 0.05, 3, True, cost, 0, N)
    assert np.isfinite(depth).all()
    assert cost.sum() == 0.0
