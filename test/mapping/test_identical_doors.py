"""A corridor in which every door is the same door: no loop, and a lost camera does not guess."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support.simulated_estimator import FooledEstimator

from dust3r_ros.mapping import Frame, Localiser, Mapper, MapperConfig, MapUpdate, TrackingState
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.mapping.places.image_descriptor import image_descriptor
from dust3r_ros.simulation import SimulatedView, identical_doors_sequence

STEPS, PERIOD, SECOND = 8, 2.4, 10**9  # views a door; metres from door to door
FORTH, BACK = 10, 7  # doors
CONFIG = with_settings(MapperConfig(), {"window.size": 4, "window.scene_graph": "swin-2", "map.voxel_size": 0.05})


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    """Forth along the doors."""
    doors = identical_doors_sequence(FORTH * STEPS, 96, 72)
    return list(doors)


@pytest.fixture(scope="module")
def back(views: list[SimulatedView]) -> list[SimulatedView]:
    """And back again, by pictures that are new."""
    again = identical_doors_sequence(3 * FORTH * STEPS, 96, 72)
    return [replace(again[2 * FORTH * STEPS + k], pose=views[k].pose) for k in range(FORTH * STEPS - 2, (FORTH - BACK) * STEPS, -1)]


def walk(mapper: Mapper | Localiser, views: Iterable[SimulatedView], start: int) -> list[MapUpdate]:
    return [mapper.add(Frame(start + n * SECOND // 10, view.image, view.camera)) for n, view in enumerate(views)]


def test_the_doors_look_the_same(views: list[SimulatedView]) -> None:
    pictures = [image_descriptor(view.image) for view in views[3::STEPS]]
    assert min(float(pictures[0] @ other) for other in pictures) > 0.98
    assert np.linalg.norm(views[STEPS].pose[:3, 3] - views[0].pose[:3, 3]) == pytest.approx(PERIOD)


def test_no_door_is_taken_for_another_and_the_map_stays_as_long_as_the_way(views: list[SimulatedView], back: list[SimulatedView]) -> None:
    way = views + back
    mapper = Mapper(CONFIG, FooledEstimator(way, PERIOD, size=96, noise=0.01))
    updates = walk(mapper, way, SECOND)
    truth = {SECOND + n * SECOND // 10: view.pose for n, view in enumerate(way)}
    stamps = {keyframe.index: keyframe.stamp for keyframe in mapper.keyframes}
    loops = [loop for update in updates for loop in update.loops]
    apart = [np.linalg.norm(truth[stamps[i]][:3, 3] - truth[stamps[j]][:3, 3]) for i, j in loops]
    assert not [distance for distance in apart if distance > 0.5 * PERIOD]
    found = dict(mapper.trajectory())
    ends = [SECOND, SECOND + (FORTH * STEPS - 1) * SECOND // 10, max(found)]
    there, back = (np.linalg.norm(found[b][:3, 3] - found[a][:3, 3]) for a, b in pairwise(ends))
    assert back / there == pytest.approx(BACK / FORTH, rel=0.05)


def test_a_lost_camera_that_could_be_at_any_door_waits(views: list[SimulatedView]) -> None:
    mapper = Mapper(CONFIG, FooledEstimator(views, PERIOD, size=96, noise=0.01))
    walk(mapper, views, SECOND)
    poses = {keyframe.index: keyframe.pose for keyframe in mapper.keyframes}
    dark = [replace(views[0], image=np.zeros_like(views[0].image))] * 30
    walk(mapper, dark, 100 * SECOND)
    updates = walk(mapper, views[4 * STEPS : 6 * STEPS], 104 * SECOND)
    assert {update.state for update in updates} == {TrackingState.LOST}
    assert any("waits for more to be seen" in update.reason for update in updates)
    assert {keyframe.index for keyframe in mapper.keyframes} == set(poses)


def test_a_piece_at_one_of_the_doors_is_not_joined_at_another(views: list[SimulatedView]) -> None:
    """Each of them looks as if the piece knew it; but the map itself has it more than once."""
    estimator, there = FooledEstimator(views, PERIOD, size=96, noise=0.01), 2 * STEPS + 2
    one, piece = Mapper(CONFIG, estimator), Mapper(CONFIG, estimator)
    walk(one, views[:there], SECOND)
    walk(piece, views[6 * STEPS : 7 * STEPS - 2], SECOND)
    assert len(piece.keyframes) >= 2
    mapper = Mapper(CONFIG, estimator)
    mapper.restore(replace(one.snapshot(), pieces=(piece.snapshot(),)))
    before = len(mapper.keyframes)
    updates = walk(mapper, views[there - 1 : there + STEPS - 1], 100 * SECOND)
    assert updates[-1].state is TrackingState.TRACKING
    assert len(mapper.keyframes) > before + 3
    assert len(mapper.pieces) == 1
    # Lost, it maps another door apart: nor are the two pieces one.
    walk(mapper, [replace(views[0], image=np.zeros_like(views[0].image))] * 31, 110 * SECOND)
    walk(mapper, views[8 * STEPS : 9 * STEPS - 2], 114 * SECOND)
    assert len(mapper.pieces) == 2


def test_in_a_map_that_stands_a_camera_that_could_be_at_any_door_waits_too(views: list[SimulatedView]) -> None:
    estimator = FooledEstimator(views, PERIOD, size=96, noise=0.01)
    mapper = Mapper(CONFIG, estimator)
    walk(mapper, views[: 4 * STEPS], SECOND)
    localiser = Localiser(CONFIG, estimator, mapper.snapshot())
    updates = walk(localiser, views[2 * STEPS : 3 * STEPS : 2], 100 * SECOND)
    assert {update.state for update in updates} == {TrackingState.LOST}
    assert any("waits for more to be seen" in update.reason for update in updates)
