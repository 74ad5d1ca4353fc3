"""Compressed links and the graph of keyframes that they hold together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.alignment.coarse_graph import solve_coarsely
from dust3r_ros.alignment.link import Link, Side, make_link, merged
from dust3r_ros.alignment.pose_graph import _Problem, solve_pose_graph
from dust3r_ros.alignment.sim3 import Sim3
from dust3r_ros.alignment.similarity_table import SimilarityTable
from dust3r_ros.geometry import Similarity

RING = 24


def random_transforms(count: int, seed: int) -> Sim3:
    rng = np.random.default_rng(seed)
    return Sim3(np.exp(0.3 * rng.normal(size=count)), Rotation.random(count, random_state=rng).as_matrix(), rng.normal(size=(count, 3)))


def matrix(s: Similarity) -> np.ndarray:
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = s.scale * s.rotation, s.translation
    return found


def test_similarities_are_a_group_and_increments_move_them() -> None:
    a, b = random_transforms(5, 0), random_transforms(5, 1)
    step = 1e-6 * np.random.default_rng(2).normal(size=(5, 7))
    for n in range(5):
        np.testing.assert_allclose(matrix((a @ b).one(n)), matrix(a.one(n)) @ matrix(b.one(n)), atol=1e-12)
        np.testing.assert_allclose(matrix((a @ a.inverse()).one(n)), np.eye(4), atol=1e-12)
    identity = a @ a.inverse()
    np.testing.assert_allclose(identity.moved(step).difference(), step, atol=1e-12)
    # An increment on the right is the adjoint's on the left.
    left = (a.moved(step) @ a.inverse()).difference()
    np.testing.assert_allclose(left, np.einsum("nab,nb->na", a.adjoint(), step), atol=1e-10)


def test_the_errors_derivatives() -> None:
    state, expected = random_transforms(4, 3), random_transforms(3, 4)
    ends = np.array([[0, 1], [1, 2], [3, 0]])
    problem = _Problem(expected, ends, np.tile(np.eye(7), (3, 1, 1)))
    weight = np.array([1.0, 0.5, 2.0])
    _, gradient = problem.equations(state, weight)

    def cost(x: np.ndarray) -> float:
        return 0.5 * float((weight * problem.chi_square(state.moved(x.reshape(-1, 7)))).sum())

    for k in range(28):
        x = np.zeros(28)
        x[k] = 1e-6
        assert gradient[k] == pytest.approx((cost(x) - cost(-x)) / 2e-6, rel=1e-4, abs=1e-6)


def side(points: np.ndarray, to_pair: Similarity, noise: float, rng: np.random.Generator) -> Side:
    seen = to_pair.scale * to_pair.rotation @ points + to_pair.translation[:, None]
    return Side(points, seen + noise * to_pair.scale * rng.normal(size=points.shape), np.ones(points.shape[1]))


def test_a_link_is_where_one_keyframe_stands_in_the_other_and_how_surely() -> None:
    """Over many draws the error of `relative` is as large as its information says, all PATCHES pixels being independent."""
    rng = np.random.default_rng(5)
    i, j = random_transforms(2, 6).one(0), random_transforms(2, 6).one(1)  # keyframes' frames to the pair's
    true = Sim3.stack([i]).inverse() @ Sim3.stack([j])
    errors = []
    for _ in range(200):
        points = [rng.normal(size=(3, 16)) + np.array([[0.0], [0.0], [4.0]]) for _ in range(2)]
        link = make_link(3, 8, *(side(p, t, 0.05, rng) for p, t in zip(points, (i, j), strict=True)))
        assert link is not None
        assert (link.i, link.j) == (3, 8)
        off = (Sim3.stack([link.relative]).inverse() @ true).difference()[0]
        errors.append(off @ link.information @ off / 7)
        np.testing.assert_allclose(matrix(link.relative), matrix(true.one(0)), atol=0.5)
    assert 0.3 < np.median(errors) < 3.0
    nothing = Side(points[0], points[0], np.zeros(16))
    assert make_link(0, 1, nothing, nothing) is None


def test_two_links_in_one_are_between_both_and_surer() -> None:
    a = Link(0, 1, Similarity(1.0, np.eye(3), np.zeros(3)), np.eye(7))
    b = Link(0, 1, Similarity(np.exp(0.3), np.eye(3), np.array([0.3, 0.0, 0.0])), 2 * np.eye(7))
    both = merged(a, b)
    np.testing.assert_allclose(both.relative.translation, [0.2, 0, 0], atol=1e-9)
    assert np.log(both.relative.scale) == pytest.approx(0.2)
    np.testing.assert_allclose(both.information, 3 * np.eye(7))


def ring(noise: float, seed: int = 0, scale_drift: float = 0.0) -> tuple[dict[int, Similarity], list[Link], np.ndarray]:
    """Chained keyframes round a circle with drift, their links, and the true positions."""
    rng = np.random.default_rng(seed)
    true = []
    for n in range(RING):
        angle = 2 * np.pi * n / RING
        turn = Rotation.from_euler("z", angle).as_matrix()
        true.append(Similarity(1.0, turn, turn @ np.array([5.0, 0.0, 0.0])))
    links, nodes = [], {0: true[0]}
    sigma = np.array([noise] * 3 + [noise] * 3 + [max(noise, scale_drift)])
    for n in range(RING - 1):
        exact = Sim3.stack([true[n]]).inverse() @ Sim3.stack([true[n + 1]])
        step = sigma * rng.normal(size=7)
        step[6] += scale_drift
        measured = exact.moved(step[None])
        links.append(Link(n, n + 1, measured.one(0), np.diag(1 / sigma**2)))
        nodes[n + 1] = (Sim3.stack([nodes[n]]) @ measured).one(0)
    return nodes, links, np.stack([t.translation for t in true])


def closing(i: int, j: int, positions: np.ndarray, wrong: bool = False) -> Link:
    def at(n: int) -> Sim3:
        turn = Rotation.from_euler("z", 2 * np.pi * n / RING).as_matrix()
        return Sim3.stack([Similarity(1.0, turn, positions[n])])

    relative = at(i).inverse() @ at(j)
    if wrong:
        relative = replace(relative, translation=relative.translation + 3.0)
    return Link(i, j, relative.one(0), np.eye(7) * 1e4, loop=True)


def off(nodes: dict[int, Similarity], positions: np.ndarray) -> float:
    return float(np.linalg.norm(np.stack([nodes[n].translation for n in range(RING)]) - positions, axis=1).max())


@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_a_loop_takes_the_drift_out(drift: float) -> None:
    nodes, links, positions = ring(0.02, scale_drift=drift)
    graph = solve_pose_graph(nodes, [*links, closing(0, RING - 1, positions)])
    assert not graph.rejected
    assert off(graph.nodes, positions) < 0.6 * off(nodes, positions)
    assert graph.nodes[0].translation == pytest.approx(nodes[0].translation)


def test_a_wrong_loop_is_rejected_and_bends_nothing() -> None:
    nodes, links, positions = ring(0.01)
    right = [closing(0, RING - 1, positions), closing(1, RING - 2, positions)]
    graph = solve_pose_graph(nodes, [*links, *right, closing(2, 14, positions, wrong=True)])
    assert graph.rejected == ((2, 14),)
    without = solve_pose_graph(nodes, [*links, *right])
    assert off(graph.nodes, positions) < 1.1 * off(without.nodes, positions) + 0.01


def test_the_newest_alone_fit_a_loop_and_the_old_stand() -> None:
    nodes, links, positions = ring(0.02)
    loop = closing(0, RING - 1, positions)
    graph = solve_pose_graph(nodes, [*links, loop], newest=10)
    first = RING - 10
    assert graph.solved.tolist() == list(range(first, RING))
    for n in range(first):
        np.testing.assert_array_equal(matrix(graph.nodes[n]), matrix(nodes[n]))

    def gap(some: Mapping[int, Similarity]) -> float:
        return float(np.linalg.norm((some[0] @ loop.relative).translation - some[RING - 1].translation))

    assert gap(graph.nodes) < 0.5 * gap(nodes)


def test_links_that_agree_change_nothing() -> None:
    nodes, links, _ = ring(0.02)
    graph = solve_pose_graph(nodes, links)
    for n, node in nodes.items():
        np.testing.assert_allclose(matrix(graph.nodes[n]), matrix(node), atol=1e-6)
    for n, node in solve_pose_graph(nodes, []).nodes.items():
        np.testing.assert_array_equal(matrix(node), matrix(nodes[n]))


def test_parts_hold_still_each_for_itself() -> None:
    nodes, links, _ = ring(0.02)
    apart = [link for link in links if link.i != 10]
    graph = solve_pose_graph(nodes, apart)
    for n in (0, 11):
        np.testing.assert_allclose(matrix(graph.nodes[n]), matrix(nodes[n]), atol=1e-12)


def torn(nodes: Mapping[int, Similarity], links: list[Link]) -> float:
    """The farthest that a link's ends are from where it has them."""
    return max(float(np.linalg.norm((nodes[link.i] @ link.relative).translation - nodes[link.j].translation)) for link in links)


@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_solved_on_a_few_keyframes_a_loop_takes_the_drift_out_too_and_nothing_tears(drift: float) -> None:
    nodes, links, positions = ring(0.02, scale_drift=drift)
    loop = closing(0, RING - 1, positions)
    exact = solve_pose_graph(nodes, [*links, loop]).nodes
    coarse = solve_coarsely(SimilarityTable(nodes), [*links, loop], anchors=RING // 4, newest=4)
    assert not coarse.rejected
    assert coarse.solved.tolist() == list(range(RING))
    assert off(coarse.nodes, positions) < 1.3 * off(exact, positions) + 0.01
    assert torn(coarse.nodes, [loop]) < 0.2 * torn(nodes, [loop])
    assert torn(coarse.nodes, links) < 3.0 * torn(exact, links) + 0.02


def test_solved_on_a_few_keyframes_a_wrong_loop_is_rejected() -> None:
    nodes, links, positions = ring(0.01)
    right = [closing(0, RING - 1, positions), closing(1, RING - 2, positions)]
    wrong = closing(2, RING // 2, positions, wrong=True)
    graph = solve_coarsely(SimilarityTable(nodes), [*links, *right, wrong], anchors=RING // 4, newest=4)
    assert graph.rejected == ((2, RING // 2),)


def test_solved_on_a_few_keyframes_a_break_in_the_way_stays_one() -> None:
    """Two pieces of a way, of which one is turned by a loop inside it: the other stands."""
    nodes, links, positions = ring(0.02)
    half = RING // 2
    apart = [link for link in links if link.i != half - 1]
    loop = closing(half, RING - 1, positions)
    graph = solve_coarsely(SimilarityTable(nodes), [*apart, loop], anchors=RING // 4, newest=4)
    for n in range(half):
        np.testing.assert_allclose(matrix(graph.nodes[n]), matrix(nodes[n]), atol=1e-6)
    assert torn(graph.nodes, [loop]) < 0.5 * torn(nodes, [loop])
