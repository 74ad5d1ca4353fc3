"""A camera that lost its way: it is found in the whole map as soon as it sees a part of it, the map stands, the odometry does not jump."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from support.lost_walk import CONFIG, PERIOD, Walk

from dust3r_ros.geometry import inverse_pose, procrustes
from dust3r_ros.mapping import Mapper, MapUpdate, TrackingState
from dust3r_ros.simulation import SimulatedView, circle_sequence, room_sequence

ROUND, MAPPED = 80, 56
WITHIN = 10  # frames of seeing a mapped place


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(circle_sequence(ROUND, 120, 90))


@pytest.fixture(scope="module")
def elsewhere() -> list[SimulatedView]:
    """Another room's."""
    return list(room_sequence(12, 120, 90, seed=5))


def frames_until_found(updates: list[MapUpdate]) -> int:
    return next(n for n, update in enumerate(updates) if update.state is TrackingState.TRACKING)


def test_kidnapped_to_a_mapped_place_it_is_found_and_goes_on_from_there(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    before, last = {k.index: k.pose for k in walk.mapper.keyframes}, walk.mapper.trajectory()[-1]
    cloud = len(walk.mapper.cloud())
    after = walk.show(views[10:26])
    assert frames_until_found(after) < WITHIN
    found = next(update for update in after if update.found_again)
    assert found.keyframes == ()  # found by what is there
    assert max(walk.errors(after)) < 0.1
    assert after[-1].state is TrackingState.TRACKING
    # The odometry goes on where it was: the jump is between it and the map.
    np.testing.assert_allclose(found.odometry, walk.before.odometry, atol=1e-9)
    steps = [np.linalg.norm((inverse_pose(a.odometry) @ b.odometry)[:3, 3]) for a, b in pairwise(after)]
    assert max(steps) < 3 * np.median(steps) + 0.02
    # Nothing else moves: the old keyframes stand, and the new ones are paired with those around.
    new = [k.index for k in walk.mapper.keyframes if k.index not in before]
    joined = {i for i, j in walk.mapper.edges if j in new and i not in new}
    assert joined
    stamps = {k.index: k.stamp for k in walk.mapper.keyframes}
    assert max(stamps[i] for i in joined) < views[0].stamp + 45 * PERIOD
    pose = {k.index: k.pose for k in walk.mapper.keyframes}
    for index in before:
        np.testing.assert_allclose(pose[index], before[index], atol=0.02)
    assert dict(walk.mapper.trajectory())[last[0]] == pytest.approx(last[1], abs=0.02)
    assert len(walk.mapper.cloud()) > 0.9 * cloud


def test_blinded_for_five_seconds_and_moved_meanwhile(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    dark = walk.dark(views[MAPPED], 50)
    assert {update.state for update in dark} == {TrackingState.LOST}
    assert dark[-1].lost_seconds == pytest.approx(5.0)
    assert "lost for 5.0 s" in dark[-1].reason
    assert all(update.pose is None and update.keyframes == () for update in dark)
    np.testing.assert_array_equal(dark[0].odometry, dark[-1].odometry)
    after = walk.show(views[20:34])
    assert frames_until_found(after) < WITHIN
    assert max(walk.errors(after)) < 0.1
    assert after[-1].lost_seconds == 0.0


def test_covered_for_a_moment_it_goes_on_as_if_nothing_had_been(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    walk.dark(views[MAPPED], 5)
    after = walk.show([views[MAPPED - 1], *views[MAPPED : MAPPED + 5]])
    assert frames_until_found(after) == 0
    assert not after[0].found_again
    assert max(walk.errors(after)) < 0.1


def test_with_nine_frames_of_ten_dropped_it_is_found_wherever_it_turns_up(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    after = walk.show(views[4:54:8], times=10)
    assert [update.state for update in after].count(TrackingState.TRACKING) == len(after)
    assert max(walk.errors(after)) < 0.1


def test_a_camera_that_was_paused_and_carried_away(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    walk.show([views[33]], times=300)
    assert frames_until_found([*walk.updates, *walk.show(views[34:44])]) < WITHIN
    assert max(walk.errors(walk.updates)) < 0.1


def test_what_was_never_seen_is_not_found_and_the_map_stands(views: list[SimulatedView], elsewhere: list[SimulatedView]) -> None:
    walk = Walk(views, elsewhere, mapped=MAPPED)
    keyframes, edges = {k.index: k.pose for k in walk.mapper.keyframes}, walk.mapper.edges
    walk.dark(views[MAPPED], 25)
    away = walk.show(elsewhere)
    assert {update.state for update in away} == {TrackingState.LOST}
    assert walk.mapper.edges == edges
    for keyframe in walk.mapper.keyframes:
        np.testing.assert_array_equal(keyframe.pose, keyframes[keyframe.index])
    after = walk.show(views[14:28])
    assert frames_until_found(after) < WITHIN
    assert max(walk.errors(after)) < 0.1


def test_found_at_an_old_place_the_map_grows_on_from_it_and_stays_one(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    count = len(walk.mapper.keyframes)
    after = walk.show(views[10::-1] + views[:-12:-1])  # back over the start and beyond it, where nothing has been seen
    assert after[-1].state is TrackingState.TRACKING
    assert len(walk.mapper.keyframes) > count
    assert max(walk.errors(after)) < 0.15


def test_a_loaded_map_is_searched_whole(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    other = Mapper(CONFIG, walk.mapper.estimator)
    other.restore(walk.mapper.snapshot())
    walk.mapper = other
    after = walk.show(views[14:26])
    assert frames_until_found(after) < WITHIN
    assert max(walk.errors(after)) < 0.1


def test_what_it_sees_while_lost_is_mapped_apart_and_joined_when_found(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=30)
    old = {k.index for k in walk.mapper.keyframes}
    points, trajectory = len(walk.mapper.cloud()), len(walk.mapper.trajectory())
    walk.dark(views[30], 31)
    away = walk.show(views[46:72])  # on the other side of the room, which has not been seen from there
    assert {update.state for update in away} == {TrackingState.LOST}
    assert "keyframes grows apart" in away[-1].reason
    assert {k.index for k in walk.mapper.keyframes} == old  # until it is joined the map is the old one
    assert len(walk.mapper.cloud()) == points
    after = walk.show(views[72:] + views[:10])
    found = next(update for update in after if update.found_again)
    assert "keyframes joined" in found.reason
    assert found.corrected
    # One map: keyframes, frames, points and the graph of both, on one scale.
    mapper = walk.mapper
    new = [k for k in mapper.keyframes if k.index not in old and k.stamp <= found.frame.stamp]
    assert len(new) >= 5
    assert len(mapper.trajectory()) > trajectory + len(new)
    assert len(mapper.cloud()) > 1.3 * points
    first = next(k for k in mapper.keyframes if k.index in old)
    truth = {stamp: next(v for v in views if v.pose is pose) for stamp, pose in walk.truth.items()}
    scales = [_median_depth(k.depth) / _median_depth(truth[k.stamp].depth) for k in (first, *new)]
    np.testing.assert_allclose(scales, scales[0], rtol=0.05)
    to_room = procrustes(
        np.stack([k.pose[:3, 3] for k in mapper.keyframes if k.index in old]),
        np.stack([walk.truth[k.stamp][:3, 3] for k in mapper.keyframes if k.index in old]),
    )
    assert max(float(np.linalg.norm(to_room.apply(k.pose[:3, 3]) - walk.truth[k.stamp][:3, 3])) for k in new) < 0.15
    hangs = set(old)
    for _ in mapper.edges:
        hangs |= {j for i, j in mapper.edges if i in hangs}
    assert {k.index for k in mapper.keyframes} <= hangs
    assert walk.errors([found])[0] < 0.05
    mapper.align()
    assert walk.errors([found])[0] < 0.05


def _median_depth(depth: np.ndarray) -> float:
    return float(np.median(depth[depth > 0]))
