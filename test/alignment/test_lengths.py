"""Ways that wheels measured keep the scale of a long walk even, whatever single ones of them say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.alignment.lengths import Length, LengthFactors
from dust3r_ros.alignment.link import Link
from dust3r_ros.alignment.pose_graph import solve_pose_graph
from dust3r_ros.alignment.sim3 import Sim3
from dust3r_ros.geometry import Similarity, procrustes

KEYFRAMES, STEP = 240, 0.25
INFORMATION = np.diag([1e4] * 3 + [1e4] * 3 + [1e4])  # 1 %, as of links between neighbours


def corridor(drift: float, seed: int = 0) -> tuple[np.ndarray, dict[int, Similarity], list[Link]]:
    """60 m round a few corners: true places [N, 3], and a graph whose scale drifts: a random walk of `drift` (log) a keyframe."""
    rng = np.random.default_rng(seed)
    true = []
    place = np.zeros(3)
    for k in range(KEYFRAMES):
        rotation = Rotation.from_euler("z", 0.5 * np.pi * (k // 60) + 0.2 * np.sin(0.3 * k)).as_matrix()
        true.append(Similarity(1.0, rotation, place))
        place = place + STEP * rotation @ [0.0, 1.0, 0.1 * np.cos(0.2 * k)]
    grown = np.exp(np.cumsum(drift * rng.normal(size=KEYFRAMES) + 0.3 * drift))
    links = []
    for i in range(KEYFRAMES):
        for j in range(i + 1, min(i + 3, KEYFRAMES)):
            relative = (Sim3.stack([true[i]]).inverse() @ Sim3.stack([true[j]])).one(0)
            links.append(Link(i, j, replace(relative, scale=float(grown[j] / grown[i])), INFORMATION))
    nodes = {0: true[0]}
    for link in links:
        if link.j == link.i + 1:
            nodes[link.j] = (Sim3.stack([nodes[link.i]]) @ Sim3.stack([link.relative])).one(0)
    return np.stack([s.translation for s in true]), nodes, links


def wheels(places: np.ndarray, noise: float = 0.05, unit: float = 1.0, slip: range = range(0), seed: int = 1) -> list[Length]:
    rng = np.random.default_rng(seed)
    off = unit * np.exp(noise * rng.normal(size=len(places)))
    return [
        Length(k, k + 1, float(np.linalg.norm(places[k + 1] - places[k]) * off[k] * (5.0 if k in slip else 1.0)))
        for k in range(len(places) - 1)
    ]


def error(nodes: dict[int, Similarity], places: np.ndarray) -> float:
    """Root mean square after the best similarity, as a share of the way."""
    found = np.stack([nodes[k].translation for k in range(KEYFRAMES)])
    fit = procrustes(found, places)
    return float(np.sqrt(((fit.apply(found) - places) ** 2).sum(1).mean())) / (KEYFRAMES * STEP)


@pytest.mark.parametrize("slip", [range(0), range(100, 112)])
@pytest.mark.parametrize("unit", [1.0, 0.4])
def test_a_long_walk_with_drift_of_scale_becomes_even(unit: float, slip: range) -> None:
    """In whatever unit: how large the whole is, is not the wheels' to say here. For 3 m they spin."""
    places, nodes, links = corridor(0.01)
    assert error(solve_pose_graph(nodes, links).nodes, places) > 0.02
    assert error(solve_pose_graph(nodes, links, wheels(places, unit=unit, slip=slip)).nodes, places) < 0.004


def test_the_mean_size_stays() -> None:
    places, nodes, links = corridor(0.01)
    lengths = wheels(places, unit=0.4)
    solved = solve_pose_graph(nodes, links, lengths).nodes

    def size(of: dict[int, Similarity]) -> float:
        return float(np.median([np.log(np.linalg.norm(of[one.j].translation - of[one.i].translation) / one.length) for one in lengths]))

    assert size(solved) == pytest.approx(size(nodes), abs=0.03)


def test_too_few_or_foreign_lengths_change_nothing() -> None:
    places, nodes, links = corridor(0.01)
    before = solve_pose_graph(nodes, links).nodes
    for lengths in (wheels(places)[:5], [Length(1000 + k, 1001 + k, 1.0) for k in range(20)], [Length(0, 1, 0.0)] * 20):
        after = solve_pose_graph(nodes, links, lengths).nodes
        np.testing.assert_allclose([s.translation for s in after.values()], [s.translation for s in before.values()])


def test_exact_lengths_of_an_even_graph_change_nothing() -> None:
    places, nodes, links = corridor(0.0)
    after = solve_pose_graph(nodes, links, wheels(places, noise=0.0)).nodes
    np.testing.assert_allclose([s.translation for s in after.values()], places, atol=1e-6)


def test_the_lengths_derivatives() -> None:
    _, nodes, _ = corridor(0.05)
    state = Sim3.stack([nodes[k] for k in range(12)])
    ends = np.array([[k, k + 1] for k in range(11)])
    factors = LengthFactors(ends, np.log(np.linspace(0.2, 0.25, 11)), state)
    factors.weigh(state)
    _, gradient = factors.equations(state)
    for k in range(84):
        x = np.zeros(84)
        x[k] = 1e-6
        slope = (factors.cost(state.moved(x.reshape(-1, 7))) - factors.cost(state.moved(-x.reshape(-1, 7)))) / 4e-6
        assert gradient[k] == pytest.approx(slope, rel=1e-4, abs=1e-5)
