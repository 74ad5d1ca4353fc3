"""Lost more than once: what a camera sees meanwhile is kept in pieces, and each becomes part of the map when a picture joins them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from support.lost_walk import CONFIG, Walk

from dust3r_ros.geometry import procrustes
from dust3r_ros.mapping import Mapper, TrackingState
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.simulation import SimulatedView, circle_sequence

ROUND, MAPPED = 60, 16
DARK = 31  # frames at 10 Hz: from then on what is seen is mapped apart


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(circle_sequence(ROUND, 120, 90))


def carried_to(walk: Walk, views: list[SimulatedView]) -> None:
    """Covered on the way; what it sees then it has never seen, or not from there."""
    walk.dark(views[0], DARK)
    walk.show(views)


def off(walk: Walk, mapper: Mapper, old: set[int]) -> float:
    """Metres that the new keyframes are off, where the `old` ones lie best on the truth."""
    known = [k for k in mapper.keyframes if k.index in old]
    to_room = procrustes(np.stack([k.pose[:3, 3] for k in known]), np.stack([walk.truth[k.stamp][:3, 3] for k in known]))
    new = [k for k in mapper.keyframes if k.index not in old]
    return max(float(np.linalg.norm(to_room.apply(k.pose[:3, 3]) - walk.truth[k.stamp][:3, 3])) for k in new)


def is_one(mapper: Mapper) -> bool:
    """Whether all keyframes hang together."""
    hangs = {mapper.keyframes[0].index}
    for _ in mapper.keyframes:
        hangs |= {j for i, j in mapper.edges if i in hangs}
    return {k.index for k in mapper.keyframes} <= hangs


def test_kidnapped_twice_all_that_was_seen_becomes_one_map(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    mapper, old = walk.mapper, {k.index for k in walk.mapper.keyframes}
    carried_to(walk, views[26:34])
    assert len(mapper.pieces) == 1
    carried_to(walk, views[44:52])
    assert len(mapper.pieces) == 2
    assert {k.index for k in mapper.keyframes} == old  # until they are joined the map is the old one
    seen = sum(mapper.pieces)
    assert "grows apart; 1 pieces wait" in walk.updates[-1].reason
    # On to the start: the second piece knows it too.
    home = walk.show(views[52:] + views[:6])
    assert home[-1].state is TrackingState.TRACKING
    assert any("keyframes joined" in update.reason for update in home)
    assert len(mapper.pieces) == 1
    # Carried back to where the first piece is, which the map does not know, and on from there to where both are known.
    carried_to(walk, views[31:13:-1])
    assert mapper.state is TrackingState.TRACKING
    assert mapper.pieces == ()
    assert len(mapper.keyframes) >= len(old) + seen
    assert is_one(mapper)
    assert off(walk, mapper, old) < 0.2
    stamps = [stamp for stamp, _ in mapper.trajectory()]
    assert len(stamps) == len(set(stamps))


def test_two_pieces_that_see_the_same_are_one(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    carried_to(walk, views[30:38])
    first = walk.mapper.pieces[0]
    carried_to(walk, views[48:33:-1])
    assert len(walk.mapper.pieces) == 1
    assert walk.mapper.pieces[0] > first + 2
    # All of it is found at once.
    old = {k.index for k in walk.mapper.keyframes}
    after = walk.show(views[33:11:-1])
    assert after[-1].state is TrackingState.TRACKING
    assert walk.mapper.pieces == ()
    assert is_one(walk.mapper)
    assert off(walk, walk.mapper, old) < 0.2


def test_blinded_twice_it_goes_on_in_the_piece_that_knows_the_place(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    carried_to(walk, views[30:40])
    first = walk.mapper.pieces
    carried_to(walk, views[36:40])  # the same place: no second piece
    assert walk.mapper.pieces == first
    walk.show(views[40:48])
    assert len(walk.mapper.pieces) == 1
    assert walk.mapper.pieces[0] > first[0]


def test_the_map_grows_to_where_a_piece_was_seen_and_takes_it_in(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    mapper, old = walk.mapper, {k.index for k in walk.mapper.keyframes}
    carried_to(walk, views[24:34])
    walk.dark(views[0], DARK)
    after = walk.show(views[MAPPED - 4 : 30])
    assert after[0].state is TrackingState.TRACKING  # found in the map, and not lost since
    assert {update.state for update in after} == {TrackingState.TRACKING}
    joined = next(update for update in after if "keyframes joined" in update.reason)
    assert joined.corrected
    assert mapper.pieces == ()
    assert is_one(mapper)
    assert off(walk, mapper, old) < 0.2


def test_a_second_session_elsewhere_loses_nothing(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    second = Mapper(CONFIG, walk.mapper.estimator)
    second.restore(walk.mapper.snapshot())
    walk.mapper = second
    carried_to(walk, views[26:38])  # lost from the start
    piece = second.pieces
    assert len(piece) == 1
    saved = second.snapshot()
    assert [len(one.keyframes) for one in saved.pieces] == list(piece)
    third = Mapper(CONFIG, walk.mapper.estimator)
    third.restore(saved)
    assert third.pieces == piece
    apart = {keyframe.stamp for one in saved.pieces for keyframe in one.keyframes}
    walk.mapper, old = third, {k.index for k in third.keyframes}
    walk.show(views[8:34])
    assert third.state is TrackingState.TRACKING
    assert third.pieces == ()
    assert apart <= {stamp for stamp, _ in third.trajectory()}
    assert is_one(third)
    assert off(walk, third, old) < 0.2


def test_pieces_are_bounded_and_the_log_says_which_goes(views: list[SimulatedView], caplog: pytest.LogCaptureFixture) -> None:
    walk = Walk(views, mapped=MAPPED, **{"map.max_pieces": 1})
    carried_to(walk, views[24:38])
    first = walk.mapper.pieces[0]
    carried_to(walk, views[44:48])
    second = walk.mapper.pieces[1]
    assert second < first
    with caplog.at_level(logging.WARNING, "dust3r_ros"):
        walk.dark(views[0], DARK)
    assert walk.mapper.pieces == (first,)
    assert f"a map piece of {second} keyframes is given up" in caplog.text
    walk.mapper.configure(with_settings(walk.mapper.config, {"map.max_pieces": 0}))
    assert walk.mapper.pieces == ()


def test_another_piece_knows_nothing_of_another_room(views: list[SimulatedView]) -> None:
    """What looks alike and is another place joins nothing."""
    elsewhere = circle_sequence(ROUND, 120, 90, seed=3)[20:32]
    walk = Walk(views, elsewhere, mapped=MAPPED)
    carried_to(walk, elsewhere)
    carried_to(walk, views[26:34])
    assert len(walk.mapper.pieces) == 2
    walk.show(views[34:] + views[:8])
    assert walk.mapper.state is TrackingState.TRACKING
    assert len(walk.mapper.pieces) == 1


def test_reset_forgets_the_pieces_too(views: list[SimulatedView]) -> None:
    walk = Walk(views, mapped=MAPPED)
    carried_to(walk, views[24:30])
    assert walk.mapper.pieces
    walk.mapper.reset()
    assert walk.mapper.pieces == ()
