"""Localisation alone: every frame placed in a map that stays as it is, whatever the camera does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import create_estimator
from dust3r_ros.geometry import Similarity, procrustes
from dust3r_ros.io.map_file import save_map
from dust3r_ros.mapping import (
    ConfigError,
    Frame,
    FrameError,
    LocalisationError,
    Localiser,
    Mapper,
    MapperConfig,
    MapSnapshot,
    StampError,
    TrackingState,
    with_settings,
)
from dust3r_ros.simulation import SimulatedView, room_sequence

CONFIG = with_settings(MapperConfig(), {"window.size": 3, "keyframes.min_parallax": 0.02})
PERIOD = 100_000_000


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(30, 160, 120))


@pytest.fixture(scope="module")
def snapshot(views: list[SimulatedView]) -> MapSnapshot:
    """A map of every other view."""
    mapper = Mapper(CONFIG, create_estimator("flow", 160))
    for view in views[::2]:
        mapper.add(frame_of(view))
    return mapper.snapshot()


@pytest.fixture(scope="module")
def to_room(snapshot: MapSnapshot, views: list[SimulatedView]) -> Similarity:
    truth = {view.stamp: view.pose[:3, 3] for view in views}
    keyframes = snapshot.keyframes
    return procrustes([k.pose[:3, 3] for k in keyframes], [truth[k.stamp] for k in keyframes])


@pytest.fixture
def localiser(snapshot: MapSnapshot) -> Localiser:
    return Localiser(CONFIG, create_estimator("flow", 160), snapshot)


def frame_of(view: SimulatedView, frames_later: int = 0) -> Frame:
    return Frame(view.stamp + frames_later * PERIOD, view.image, view.camera)


def off(pose: np.ndarray | None, view: SimulatedView, to_room: Similarity) -> float:
    """Metres."""
    assert pose is not None
    return float(np.linalg.norm(to_room.apply(pose[:3, 3]) - view.pose[:3, 3]))


def test_every_frame_has_its_place_and_the_map_stays_byte_for_byte(localiser, snapshot, views, to_room, tmp_path) -> None:
    updates = [localiser.add(frame_of(view)) for view in views]
    assert [update.state for update in updates] == [TrackingState.TRACKING] * len(views)
    errors = [off(update.pose, view, to_room) for update, view in zip(updates, views, strict=True)]
    assert max(errors) < 0.04
    assert sum("placed by" in update.reason for update in updates) >= 2
    assert not any(update.keyframes or update.edges or update.corrected for update in updates)
    assert [stamp for stamp, _ in localiser.trajectory()] == [view.stamp for view in views]
    save_map(tmp_path / "before", snapshot)
    save_map(tmp_path / "after", localiser.snapshot())
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("before", "after")}
    assert len(digests) == 1


def test_where_the_map_corrects_the_odometry_does_not_jump(localiser, views) -> None:
    updates = [localiser.add(frame_of(view)) for view in views]
    steps = [np.linalg.norm(b.odometry[:3, 3] - a.odometry[:3, 3]) for a, b in pairwise(updates)]
    assert max(steps) < 2.5 * np.median(steps)
    corrections = [update.pose @ np.linalg.inv(update.odometry) for update in updates]
    moved = [np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in pairwise(corrections)]
    placed = ["placed by" in update.reason for update in updates[1:]]
    assert max(m for m, p in zip(moved, placed, strict=True) if not p) < 1e-9
    assert max(m for m, p in zip(moved, placed, strict=True) if p) > 1e-4


def test_blinded_it_is_lost_and_found_again_elsewhere(localiser, views, to_room) -> None:
    for view in views[:5]:
        localiser.add(frame_of(view))
    before = localiser.add(frame_of(views[5])).odometry
    for k in range(25):
        update = localiser.add(Frame(views[5].stamp + (k + 1) * PERIOD, np.zeros_like(views[0].image), views[0].camera))
        assert update.state is TrackingState.LOST
        assert update.pose is None
        np.testing.assert_array_equal(update.odometry, before)
    assert update.lost_seconds == pytest.approx(2.5)
    found = [localiser.add(frame_of(view, 26)) for view in views[18:28]]  # kidnapped meanwhile
    at = next(n for n, update in enumerate(found) if update.pose is not None)
    assert at < 10
    assert [update.found_again for update in found[at:]] == [True] + [False] * (len(found) - at - 1)
    assert found[at].lost_seconds == 0.0
    assert off(found[at].pose, views[18 + at], to_room) < 0.03
    np.testing.assert_array_equal(found[at].odometry, before)  # what happened unseen is the map's to say


def test_covered_for_a_moment_it_goes_on_as_if_nothing_had_been(localiser, views, to_room) -> None:
    for view in views[:6]:
        localiser.add(frame_of(view))
    for k in range(5):
        assert localiser.add(Frame(views[5].stamp + (k + 1) * PERIOD, np.zeros_like(views[0].image), views[0].camera)).pose is None
    update = localiser.add(frame_of(views[6], 5))
    assert (update.state, update.found_again) == (TrackingState.TRACKING, False)
    assert off(update.pose, views[6], to_room) < 0.03


def test_another_place_is_nowhere_and_says_why(localiser, views) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    update = localiser.add(Frame(1, noise, views[0].camera))
    assert (update.state, update.pose, update.odometry) == (TrackingState.LOST, None, None)
    assert update.reason
    assert len(localiser.keyframes) > 1
    assert localiser.add(frame_of(views[3])).state is TrackingState.TRACKING


def test_the_same_frames_give_the_same_poses(snapshot, views) -> None:
    runs = []
    for _ in range(2):
        localiser = Localiser(CONFIG, create_estimator("flow", 160), snapshot)
        runs.append([localiser.add(frame_of(view)).pose for view in views[:15]])
    np.testing.assert_array_equal(*runs)


def test_in_a_map_of_small_pictures(snapshot, views, to_room) -> None:
    from dust3r_ros.mapping.points.keyframe_views import compact

    old = replace(snapshot, keyframes=tuple(map(compact, snapshot.keyframes)), window=())
    localiser = Localiser(CONFIG, create_estimator("flow", 160), old)
    updates = [localiser.add(frame_of(view)) for view in views[10:24]]
    placed = [(update, view) for update, view in zip(updates, views[10:24], strict=True) if update.pose is not None]
    assert len(placed) == len(updates)
    assert max(off(update.pose, view, to_room) for update, view in placed) < 0.06


def test_reset_forgets_the_place_and_keeps_the_map(localiser, views) -> None:
    localiser.add(frame_of(views[4]))
    points = len(localiser.cloud())
    localiser.reset()
    assert localiser.state is TrackingState.LOST
    assert len(localiser.cloud()) == points > 1000
    assert localiser.trajectory() == []
    assert localiser.add(frame_of(views[0])).state is TrackingState.TRACKING  # an earlier stamp


def test_what_cannot_be_done_is_refused_and_nothing_is_lost(localiser, snapshot, views) -> None:
    localiser.add(frame_of(views[4]))
    with pytest.raises(StampError):
        localiser.add(frame_of(views[3]))
    with pytest.raises(FrameError):
        localiser.add(Frame(views[5].stamp, np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(LocalisationError, match="does not change"):
        localiser.align()
    with pytest.raises(LocalisationError, match="without keyframes"):
        localiser.restore(replace(snapshot, keyframes=()))
    with pytest.raises(ConfigError, match="estimator"):
        localiser.configure(with_settings(CONFIG, {"estimator.size": 128}))
    assert localiser.snapshot() is snapshot
    assert localiser.add(frame_of(views[5])).state is TrackingState.TRACKING


def test_without_a_map_it_waits_and_says_how_to_get_one(views) -> None:
    localiser = Localiser(CONFIG, SimulatedEstimator(views))
    update = localiser.add(frame_of(views[0]))
    assert update.state is TrackingState.INITIALISING
    assert "load_map" in update.reason
    assert (localiser.keyframes, len(localiser.cloud())) == ((), 0)


def test_a_place_that_contradicts_tracking_is_believed_only_if_it_comes_again(localiser, views, to_room) -> None:
    """As if the last placing had been wrong: the next ones tell of another place, and one alone could be the wrong one."""
    localiser.configure(with_settings(CONFIG, {"keyframes.min_baseline": 0.01, "keyframes.max_rate": 0.0}))
    localiser.add(frame_of(views[0]))
    aside = Similarity(1.0, np.eye(3), np.array([0.25, 0.0, 0.0]))
    placed = localiser._placed
    placed.poses[0] = aside.apply_pose(placed.poses[0])
    placed._newest = [replace(placed.newest[0], pose=placed.poses[0])]
    updates = [localiser.add(frame_of(view)) for view in views[1:]]
    told = [n for n, update in enumerate(updates) if "another place" in update.reason]
    taken = next(n for n, update in enumerate(updates) if "placed by" in update.reason)
    assert len(told) == 2
    assert told[-1] < taken
    assert off(updates[taken - 1].pose, views[taken], to_room) > 0.5
    assert off(updates[taken].pose, views[taken + 1], to_room) < 0.03
