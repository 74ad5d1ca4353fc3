"""Tracking beside a map that grows: the mapping thread's jobs are done when the test says so, as if the estimator took so many frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.mapping import Frame, LiveTracking, Localiser, Mapper, MapperConfig, MapUpdate, StampError, TrackingState
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.mapping.live_tracking import TO_HAND_IN
from dust3r_ros.simulation import SimulatedView, circle_sequence

CONFIG = with_settings(
    MapperConfig(), {"window.size": 4, "window.scene_graph": "swin-2", "keyframes.min_parallax": 0.01, "map.voxel_size": 0.02}
)
FRAMES, SLOW = 60, 4  # frames that pass while a keyframe is estimated


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    """A third of a round, 3 cm a frame."""
    return list(circle_sequence(180, 160, 120)[:FRAMES])


def frame_of(view: SimulatedView, **changes: object) -> Frame:
    return replace(Frame(view.stamp, view.image, view.camera), **changes)


class Live:
    """A LiveTracking whose mapping thread takes `slow` frames for each job."""

    def __init__(self, views: list[SimulatedView], slow: int = SLOW, localiser: Localiser | None = None, **errors: object) -> None:
        self.mapper = localiser or Mapper(CONFIG, SimulatedEstimator(views, size=160, **errors))  # type: ignore[arg-type]
        self.jobs: list[Callable[[], None]] = []
        self.mapped: list[MapUpdate | None] = []
        self.most_waiting, self._slow, self._age = 0, slow, 0
        self.front = LiveTracking(self.mapper, self.jobs.append, self.mapped.append)

    def show(self, frame: Frame) -> MapUpdate:
        update = self.front.add(frame)
        self.most_waiting = max(self.most_waiting, len(self.jobs))
        self._age += bool(self.jobs)
        if self._age > self._slow:
            self.finish()
        return update

    def finish(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()
        self._age = 0


def errors_of(poses: dict[int, np.ndarray], views: list[SimulatedView]) -> np.ndarray:
    """Distance to the truth, m, after the scale that fits best; both in the first camera's frame."""
    truth = {view.stamp: (np.linalg.inv(views[0].pose) @ view.pose)[:3, 3] for view in views}
    found, true = np.stack([pose[:3, 3] for pose in poses.values()]), np.stack([truth[stamp] for stamp in poses])
    return np.linalg.norm(found * ((found * true).sum() / (found**2).sum()) - true, axis=1)


def test_while_keyframes_are_estimated_every_frame_has_its_pose(views: list[SimulatedView]) -> None:
    live = Live(views)
    updates = [live.show(frame_of(view)) for view in views]
    placed = {u.frame.stamp: u.pose for u in updates if u.pose is not None}
    first = next(n for n, u in enumerate(updates) if u.pose is not None)
    assert first <= 3 * SLOW + 2  # two jobs, and the way to the parallax of a second keyframe
    assert len(placed) == FRAMES - first  # without a gap
    assert errors_of(placed, views).max() < 0.05  # 2 m from what it sees; 0.02 if keyframes take no time
    assert len(live.mapper.keyframes) > 4
    assert live.most_waiting == 1  # nothing queues
    assert not any(u.is_keyframe or u.keyframes for u in updates)  # that is told by the mapping thread
    assert [u.is_keyframe for u in live.mapped if u is not None].count(True) == len(live.mapper.keyframes) - 1


def test_the_odometry_does_not_jump_where_a_new_reference_is_taken_over(views: list[SimulatedView]) -> None:
    live = Live(views, noise=0.02)
    updates = [live.show(frame_of(view)) for view in views]
    odometry = [u.odometry for u in updates if u.odometry is not None]
    steps = np.array([np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in itertools.pairwise(odometry)])
    assert steps.max() < 2 * np.median(steps)


def test_the_mappers_trajectory_has_the_frames_that_were_tracked_meanwhile(views: list[SimulatedView]) -> None:
    live = Live(views)
    updates = [live.show(frame_of(view)) for view in views]
    live.finish()
    live.front.hand_in()
    trajectory = dict(live.mapper.trajectory())
    assert {u.frame.stamp for u in updates if u.pose is not None} <= set(trajectory)
    assert len(trajectory) == len(live.mapper.trajectory())  # each once
    assert errors_of(trajectory, views).max() < 0.05


class Revising(SimulatedEstimator):
    """What it says of a pair has noise. With the next keyframe it tells the truth of it, as flow knows earlier pairs better then."""

    def __init__(self, views: Sequence[SimulatedView], noise: float, meanwhile: Callable[[], None]) -> None:
        super().__init__(views, size=160)
        self._at_first, self._meanwhile, self._told = noise, meanwhile, set[tuple[int, int]]()

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        self._meanwhile()
        earlier = sorted(pair for pair in self._told - set(pairs) if set(pair) <= set(views))
        self._told.update(pairs)
        self._noise = self._at_first
        new = super().estimate(views, pairs)
        self._noise = 0.0
        return [*super().estimate(views, earlier), *new]


def test_frames_tracked_while_a_keyframe_is_made_are_placed_anew_by_what_it_says_of_their_depth(views: list[SimulatedView]) -> None:
    to_come, late, jobs = iter(views), list[MapUpdate](), list[Callable[[], None]]()

    def meanwhile() -> None:
        late.extend(front.add(frame_of(view)) for view in itertools.islice(to_come, SLOW))

    mapper = Mapper(CONFIG, Revising(views, 0.1, meanwhile))
    front = LiveTracking(mapper, jobs.append, lambda _: None)
    for view in to_come:
        front.add(frame_of(view))
        while jobs:
            jobs.pop()()
    front.hand_in()
    trajectory = dict(mapper.trajectory())
    off = dict(zip(trajectory, errors_of(trajectory, views), strict=True))
    stamps = {update.frame.stamp for update in late if update.pose is not None}
    assert len(stamps) >= 4 * SLOW
    of_late, of_others = (np.sqrt(np.mean([off[stamp] ** 2 for stamp in some])) for some in (stamps, set(off) - stamps))
    assert of_late < 1.5 * of_others  # more than 4 times, if they stay as they were tracked


def test_with_a_map_that_needs_no_time_it_is_as_good_as_the_mapper(views: list[SimulatedView]) -> None:
    live, mapper = Live(views, slow=0), Mapper(CONFIG, SimulatedEstimator(views, size=160))
    poses = {}
    for view in views:
        live.show(frame_of(view))
        update = live.front.take_over()  # as the node does when no image comes
        if update is not None:
            poses[view.stamp] = update.pose
        mapper.add(frame_of(view))
    assert len(poses) == 1  # the frame that brought the first map
    assert abs(len(live.mapper.keyframes) - len(mapper.keyframes)) <= 1
    live.front.hand_in()
    off, offline = (errors_of(dict(one.trajectory()), views).max() for one in (live.mapper, mapper))
    assert off < 1.5 * offline


def test_covered_it_is_lost_and_found_by_the_map_while_frames_go_on(views: list[SimulatedView]) -> None:
    live = Live(views)
    for view in views[:40]:
        live.show(frame_of(view))
    dark, here = np.zeros_like(views[0].image), views[39].stamp
    for n in range(40):
        update = live.show(Frame(here + (n + 1) * 10**8, dark, views[0].camera))
    assert update.state is TrackingState.LOST
    assert update.pose is None
    assert update.lost_seconds == pytest.approx(4.0)
    assert "lost for 4.0 s" in update.reason
    before = update.odometry
    again = [live.show(frame_of(view, stamp=here + (41 + n) * 10**8)) for n, view in enumerate(views[10:30])]
    found = [u for u in again if u.pose is not None]
    assert found[0].found_again
    assert not any(u.found_again for u in found[1:])
    assert again.index(found[0]) <= 3 * SLOW + 2
    assert len(found) == len(again) - again.index(found[0])
    assert found[0].odometry is not None
    assert np.linalg.norm(found[0].odometry[:3, 3] - before[:3, 3]) < 0.2  # it goes on where it was lost
    by_stamp = {u.frame.stamp: u.pose for u in found}
    there = [replace(view, stamp=here + (41 + n) * 10**8) for n, view in enumerate(views[10:30])]
    shown = [v for v in [*views, *there] if v.stamp in by_stamp or v is views[0]]
    assert errors_of(by_stamp, shown).max() < 0.06


def test_a_map_that_is_aligned_while_a_frame_waits_is_asked_for_no_other(views: list[SimulatedView]) -> None:
    live = Live(views, slow=6)
    for view in views[:40]:
        live.show(frame_of(view))
        if live.jobs and len(live.mapper.keyframes) > 2:
            live.mapper.align()
            live.front.refresh()
    live.finish()
    assert live.most_waiting == 1  # a second frame would come with the points of a keyframe that is no longer the reference
    assert len(live.mapper.keyframes) > 2


def test_a_camera_that_stands_still_for_long_leaves_nothing_waiting(views: list[SimulatedView]) -> None:
    live = Live(views, slow=0)
    for view in views[:20]:
        live.show(frame_of(view))
    last, most = views[19], 0
    for n in range(1, 2 * TO_HAND_IN):
        live.show(frame_of(last, stamp=last.stamp + n * 33_000_000))
        most = max(most, live.front._mapping.waiting)
    assert most <= TO_HAND_IN + 2
    assert len(live.mapper.trajectory()) > TO_HAND_IN  # of what was handed in by then
    assert live.front.state is TrackingState.TRACKING


def test_after_a_restart_nothing_of_the_old_map_is_done(views: list[SimulatedView]) -> None:
    live = Live(views, slow=1000)
    live.show(frame_of(views[0]))
    assert live.jobs
    live.mapper.reset()
    live.front.restart()
    live.finish()
    assert live.mapped == []
    assert live.front.is_idle
    assert live.show(frame_of(views[0])).state is TrackingState.INITIALISING  # any stamp may come next


def test_a_frame_that_the_map_cannot_use_does_not_stop_tracking(views: list[SimulatedView]) -> None:
    live = Live(views, slow=1000)
    for view in views[:12]:
        live.show(frame_of(view))
        live.finish()
    assert live.front.state is TrackingState.TRACKING
    encode = live.mapper.estimator.encode
    live.mapper.estimator.encode = None  # type: ignore[method-assign,assignment]
    shown = 12
    while not live.jobs:
        live.show(frame_of(views[shown]))
        shown += 1
    with pytest.raises(TypeError):
        live.finish()
    live.mapper.estimator.encode = encode  # type: ignore[method-assign]
    for view in views[shown:]:
        assert live.show(frame_of(view)).state is TrackingState.TRACKING
        live.finish()
    with pytest.raises(StampError):
        live.show(frame_of(views[-1]))


@pytest.fixture(scope="module")
def localiser(views: list[SimulatedView]) -> Localiser:
    """In a map of every other view."""
    mapper = Mapper(CONFIG, SimulatedEstimator(views, size=160))
    for view in views[::2]:
        mapper.add(frame_of(view))
    return Localiser(CONFIG, mapper.estimator, mapper.snapshot())


def test_in_a_map_that_stands_every_frame_has_its_pose_while_places_are_looked_for(
    views: list[SimulatedView], localiser: Localiser
) -> None:
    localiser.reset()
    live = Live(views, slow=6, localiser=localiser)
    updates = [live.show(frame_of(view)) for view in views]
    first = next(n for n, update in enumerate(updates) if update.pose is not None)
    assert first <= 8  # the first place takes as long
    assert all("lost for" in update.reason and update.state is TrackingState.LOST for update in updates[:first])
    placed = {update.frame.stamp: update.pose for update in updates[first:] if update.pose is not None}
    assert len(placed) == FRAMES - first  # without a gap
    assert errors_of(placed, views).max() < 0.05
    assert sum("placed by" in update.reason for update in live.mapped if update is not None) > 2
    assert live.most_waiting == 1
    odometry = [update.odometry for update in updates if update.odometry is not None]
    steps = np.array([np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in itertools.pairwise(odometry)])
    assert steps.max() < 2 * np.median(steps)
    live.finish()
    live.front.hand_in()
    trajectory = dict(localiser.trajectory())
    assert set(placed) <= set(trajectory)
    assert len(trajectory) == len(localiser.trajectory())
    assert errors_of(trajectory, views).max() < 0.05


def test_in_a_map_that_stands_a_camera_that_was_never_found_is_lost_since_its_first_frame(
    views: list[SimulatedView], localiser: Localiser
) -> None:
    localiser.reset()
    live = Live(views, slow=0, localiser=localiser)
    for k in range(3):
        live.show(Frame(1_700_000_000_000_000_000 + k * 300_000_000, np.full_like(views[0].image, 90), views[0].camera))
        live.finish()
    assert live.mapped[-1] is not None
    assert live.mapped[-1].lost_seconds == pytest.approx(0.6)


def test_in_a_map_that_stands_a_kidnapped_camera_is_found_while_frames_go_on(views: list[SimulatedView], localiser: Localiser) -> None:
    localiser.reset()
    live = Live(views, localiser=localiser)
    for view in views[:20]:
        live.show(frame_of(view))
    here = views[19].stamp
    for n in range(30):
        update = live.show(Frame(here + (n + 1) * 10**8, np.zeros_like(views[0].image), views[0].camera))
    assert (update.state, update.pose) == (TrackingState.LOST, None)
    assert update.lost_seconds == pytest.approx(3.0)
    again = [live.show(frame_of(view, stamp=here + (31 + n) * 10**8)) for n, view in enumerate(views[40:60])]
    found = [u for u in again if u.pose is not None]
    assert again.index(found[0]) <= 2 * SLOW + 2
    assert [u.found_again for u in found] == [True] + [False] * (len(found) - 1)
    assert len(found) == len(again) - again.index(found[0])
    there = [replace(view, stamp=here + (31 + n) * 10**8) for n, view in enumerate(views[40:60])]
    poses = {u.frame.stamp: u.pose for u in found}
    assert errors_of(poses, [views[0], *(v for v in there if v.stamp in poses)]).max() < 0.06


def test_in_a_map_that_stands_the_scale_comes_in_without_a_jump(views: list[SimulatedView], localiser: Localiser) -> None:
    live = Live(views, localiser=Localiser(CONFIG, localiser.estimator, localiser.snapshot()))
    updates = []
    for view in views:
        live.mapper.add_depth(view.stamp, view.depth)
        updates.append(live.show(frame_of(view)))
    live.finish()
    assert live.mapper.scale.source == "depth"
    odometry = [update.odometry for update in updates if update.odometry is not None]
    steps = np.array([np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in itertools.pairwise(odometry)])
    was, now = np.median(steps[:10]), np.median(steps[-5:])
    assert now > 1.5 * was  # metres from then on
    assert steps.max() < 2 * now
    live.front.hand_in()
    trajectory = dict(live.mapper.trajectory())
    assert errors_of(trajectory, views).max() < 0.05  # also of frames from before
    first, last = min(trajectory), max(trajectory)
    way = np.linalg.norm(trajectory[last][:3, 3] - trajectory[first][:3, 3])
    by_stamp = {view.stamp: view.pose[:3, 3] for view in views}
    assert way == pytest.approx(np.linalg.norm(by_stamp[last] - by_stamp[first]), rel=0.04)


def test_a_pose_is_told_before_the_map_is_asked_about_the_frame(views: list[SimulatedView]) -> None:
    live, told = Live(views), []
    for view in views:
        waiting = len(live.jobs)
        told.clear()
        update = live.front.add(frame_of(view), lambda early, w=waiting: told.append((early, len(live.jobs) - w)))
        ((early, asked),) = told
        assert asked == 0
        assert early.frame is update.frame
        assert early.pose is update.pose
        assert early.odometry is update.odometry
        assert update.reason
        live.finish()
