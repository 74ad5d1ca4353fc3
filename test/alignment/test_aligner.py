"""Alignment one keyframe at a time: as good as all at once, in memory that does not grow, and through loops."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.pair_simulator import PairSimulator

from dust3r_ros.alignment import AlignedView, Aligner, Correction, SettledView, align
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import procrustes
from dust3r_ros.simulation import circle_sequence, ring_sequence

WINDOW = 6


def both(views: PairSimulator, i: int, j: int) -> list[PairPrediction]:
    return [views.pair(i, j), views.pair(j, i)]


def centre(views: PairSimulator) -> tuple[float, float]:
    return views.camera.cx, views.camera.cy


def walked(views: PairSimulator, known_focal: bool = True) -> tuple[Aligner, dict[int, AlignedView]]:
    """Every keyframe with the three before it; the aligner, and each keyframe's last depth."""
    aligner, window, last = Aligner(), deque[int](), dict[int, AlignedView]()
    for k in range(len(views.poses)):
        pairs = [p for d in (1, 2, 3) if k - d in window for p in both(views, k - d, k)]
        found = aligner.add(k, pairs, views.camera.fx if known_focal else None, centre(views))
        assert found is not None
        assert (k in found) == (k > 0)
        last.update({n: view for n, view in found.items() if view.depth is not None})
        window.append(k)
        if len(window) > WINDOW:
            oldest = window.popleft()
            view = aligner.retire(oldest)
            assert view is not None
            last[oldest] = view
    return aligner, last


def waited_for(aligner: Aligner) -> Correction:
    until = time.monotonic() + 60
    while (correction := aligner.finished()) is None:
        assert time.monotonic() < until, "the whole graph's alignment did not end within a minute"
        time.sleep(0.001)
    return correction


def error(positions: dict[int, np.ndarray], views: PairSimulator) -> float:
    """RMSE after the best similarity, metres."""
    order = sorted(positions)
    found, truth = np.stack([positions[n] for n in order]), np.stack([views.poses[n][:3, 3] for n in order])
    return float(np.sqrt(((procrustes(found, truth).apply(found) - truth) ** 2).sum(1).mean()))


@pytest.fixture(scope="module")
def circle() -> PairSimulator:
    return PairSimulator.of(circle_sequence(20, 80, 60), seed=4)


@pytest.mark.parametrize("known_focal", [True, False])
def test_one_by_one_comes_near_to_all_at_once(circle: PairSimulator, known_focal: bool) -> None:
    aligner, last = walked(circle, known_focal)
    pairs = [p for k in range(20) for d in (1, 2, 3) if k >= d for p in both(circle, k - d, k)]
    focals = dict.fromkeys(range(20), circle.camera.fx) if known_focal else None
    whole = align(pairs, focals, None, dict.fromkeys(range(20), centre(circle)))
    aligner.align()
    at_once = error(dict(enumerate(whole.poses[:, :3, 3])), circle)
    assert error(aligner.positions, circle) < 2.0 * at_once + 0.005
    assert sorted(last) == list(range(20))
    depths = {n: view.depth for n, view in last.items() if view.depth is not None}
    ratios = [np.median(depth[depth > 0] / circle.depths[n][depth > 0]) for n, depth in depths.items()]
    np.testing.assert_allclose(ratios, np.median(ratios), rtol=0.06)


def test_the_same_pairs_give_the_same_keyframes(circle: PairSimulator) -> None:
    first, second = walked(circle)[0], walked(circle)[0]
    for n, position in first.positions.items():
        np.testing.assert_array_equal(position, second.positions[n])


def test_a_keyframe_without_a_place_changes_nothing(circle: PairSimulator) -> None:
    aligner = Aligner()
    aligner.add(0, [], circle.camera.fx, centre(circle))
    for k in (1, 2):
        aligner.add(k, [p for j in range(k) for p in both(circle, j, k)], circle.camera.fx, centre(circle))
    before = aligner.positions
    blank = [replace(p, confidence_i=torch.ones(60, 80), confidence_j=torch.ones(60, 80)) for p in both(circle, 2, 3)]
    assert aligner.add(3, blank, circle.camera.fx, centre(circle)) is None
    assert aligner.add(4, both(circle, 3, 4), circle.camera.fx, centre(circle)) is None  # its partner has no place either
    for n, position in aligner.positions.items():
        np.testing.assert_array_equal(position, before[n])
    assert aligner.add(5, both(circle, 2, 5), circle.camera.fx, centre(circle)) is not None


def narrow(pair: PairPrediction) -> PairPrediction:
    """As if a telescope of a thousandth of a degree had taken it."""
    slim = torch.tensor([1e-4, 1e-4, 1.0])
    return replace(pair, points_i=pair.points_i * slim, points_j=pair.points_j * slim)


def test_a_first_pair_that_no_camera_sees_so_is_waited_out(circle: PairSimulator) -> None:
    aligner = Aligner()
    aligner.add(0, [], None, centre(circle))
    assert aligner.add(1, [narrow(pair) for pair in both(circle, 0, 1)], None, centre(circle)) is None
    assert not aligner.positions
    views = aligner.add(2, both(circle, 0, 2), None, centre(circle))
    assert views is not None
    assert views[0].focal == pytest.approx(circle.camera.fx, rel=0.1)


def test_a_focal_length_that_one_pair_does_not_say_is_taken_from_another(circle: PairSimulator) -> None:
    pairs = [pair for i, j in ((0, 1), (0, 2), (1, 2)) for pair in both(circle, i, j)]
    best = replace(narrow(pairs[0]), confidence_i=5 * pairs[0].confidence_i, confidence_j=5 * pairs[0].confidence_j)
    found = align([best, *pairs[1:]], principal_points=dict.fromkeys(range(3), centre(circle)))
    assert found.dropped.keys() == {0}
    assert found.focals == pytest.approx(circle.camera.fx, rel=0.1)


def test_a_wrong_pair_in_the_window_is_left_out(circle: PairSimulator) -> None:
    spoilt = PairSimulator(circle.depths, circle.poses, circle.camera, wrong={(9, 11): "moved", (11, 9): "moved"}, seed=4)
    good, bad = walked(circle)[0], walked(spoilt)[0]
    assert error(bad.positions, circle) < 1.5 * error(good.positions, circle) + 0.005
    assert (9, 11) in {(link.i, link.j) for link in good.links}
    assert (9, 11) not in {(link.i, link.j) for link in bad.links}


def test_a_world_that_grows_while_the_whole_graph_is_aligned_is_the_same_as_one_that_grows_after(circle: PairSimulator) -> None:
    early, late = walked(circle)[0], walked(circle)[0]
    assert early.start()
    before = early.positions
    moved = early.grow(2.5)
    assert set(moved.moves) == set(before)
    for n, position in early.positions.items():
        np.testing.assert_allclose(position, 2.5 * before[n], atol=1e-9)
    correction = waited_for(early)
    late.align()
    late.grow(2.5)
    for n, position in early.positions.items():
        np.testing.assert_allclose(position, late.positions[n], atol=1e-6)
    assert all(abs(move.scale - 1.0) < 0.5 for move in correction.moves.values())


def test_a_keyframe_that_left_costs_a_few_numbers(circle: PairSimulator) -> None:
    aligner, _ = walked(circle)
    window = aligner._window
    assert list(window.nodes) == list(range(20 - WINDOW, 20))
    assert all(min(pair) >= 20 - WINDOW for pair in window.edges)
    assert all(link.information.size == 49 for link in aligner.links)
    assert len(aligner._links) <= 3 * (20 - WINDOW)


@pytest.fixture(scope="module")
def ring() -> PairSimulator:
    return PairSimulator.of(ring_sequence(60, 64, 48), seed=5)


def settled(last: dict[int, AlignedView], views: PairSimulator, *keyframes: int) -> dict[int, SettledView]:
    depths = {n: last[n].depth for n in keyframes}
    return {n: SettledView(depth, views.camera.fx, centre(views)) for n, depth in depths.items() if depth is not None}


def test_loops_take_the_drift_out_as_the_whole_alignment_would(ring: PairSimulator) -> None:
    aligner, last = walked(ring)
    aligner.align()
    drifted = error(aligner.positions, ring)
    loops = [(0, 59), (1, 58), (2, 57)]
    pairs = [p for i, j in loops for p in both(ring, i, j)]
    assert aligner.close_loop(pairs, settled(last, ring, 0, 1, 2, 57, 58, 59)) == loops
    assert aligner.start()
    assert not aligner.start()  # one at a time
    assert waited_for(aligner).rejected == ()
    chain = [p for k in range(60) for d in (1, 2, 3) if k >= d for p in both(ring, k - d, k)]
    whole = align([*chain, *pairs], dict.fromkeys(range(60), ring.camera.fx), None, dict.fromkeys(range(60), centre(ring)))
    at_once = error(dict(enumerate(whole.poses[:, :3, 3])), ring)
    assert error(aligner.positions, ring) < max(0.7 * drifted, 1.5 * at_once)


def test_a_loop_whose_directions_disagree_or_that_no_drift_explains_is_none(ring: PairSimulator) -> None:
    aligner, last = walked(ring)
    views = settled(last, ring, 10, 18, 59, 0)
    assert aligner.close_loop([ring.pair(0, 59)], views) == []  # one direction alone
    turned = PairSimulator(ring.depths, ring.poses, ring.camera, wrong={(0, 59): "moved"}, seed=5)
    assert aligner.close_loop(both(turned, 0, 59), views) == []
    twin = PairSimulator([*ring.depths], [*ring.poses[:18], ring.poses[40], *ring.poses[19:]], ring.camera, seed=5)
    assert aligner.close_loop(both(twin, 10, 18), views) == []  # 18 as if it stood where 40 stands
    assert not [link for link in aligner.links if link.loop]


def test_what_comes_while_the_graph_is_solved_moves_with_the_newest(ring: PairSimulator) -> None:
    aligner, last = walked(ring)
    loops = [p for i, j in ((0, 57), (1, 58)) for p in both(ring, i, j)]
    assert aligner.close_loop(loops, settled(last, ring, 0, 1, 57, 58))
    aligner.start()
    again = [p for i in (58, 59) for p in (replace(ring.pair(i, 57), j=60), replace(ring.pair(57, i), i=60))]  # 57's picture once more
    assert aligner.add(60, again, ring.camera.fx, centre(ring)) is not None
    there = aligner.positions
    correction = waited_for(aligner)
    moved = correction.moves[59].apply(there[60][None])[0]
    assert np.linalg.norm(moved - there[60]) > 0.01  # the loop took some drift out
    np.testing.assert_allclose(aligner.positions[60], moved, atol=1e-9)


def test_a_keyframe_that_is_discarded_leaves_all_as_it_was(circle: PairSimulator) -> None:
    aligner, _ = walked(circle)
    before, window = aligner.positions, dict(aligner._window.edges)
    fresh = [p for d in (1, 2) for p in (replace(circle.pair(20 - d, 16), j=20), replace(circle.pair(16, 20 - d), i=20))]
    assert aligner.add(20, fresh, circle.camera.fx, centre(circle)) is not None
    assert any((aligner.positions[n] != before[n]).any() for n in before)
    aligner.discard(20)
    assert sorted(aligner.positions) == sorted(before)
    for n, position in aligner.positions.items():
        np.testing.assert_array_equal(position, before[n])
    assert aligner._window.edges.keys() == window.keys()
    first = Aligner()
    first.add(0, [], circle.camera.fx, centre(circle))
    assert first.add(1, both(circle, 0, 1), circle.camera.fx, centre(circle))
    first.discard(1)
    assert not first.positions  # the first one has no place either, without the second
