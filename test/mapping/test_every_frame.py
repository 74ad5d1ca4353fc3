"""The estimator on every frame: pairs with the last keyframe refine its depth and the frames' poses, and bad pairs do no harm."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from support.pairs_of_frames import PairsOfFrames

from dust3r_ros.mapping import Frame, Keyframe, LiveTracking, Mapper, MapperConfig, MapUpdate, TrackingState
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.simulation import SimulatedView, circle_sequence

FRAMES = 40
NOISE = {"noise": 0.05, "off": 0.002}


def configured(every_frame: str, **settings: object) -> MapperConfig:
    changes = {"window.size": 4, "window.scene_graph": "swin-2", "keyframes.min_parallax": 0.03, "map.voxel_size": 0.02}
    return with_settings(MapperConfig(), {**changes, "alignment.loops": False, "estimator.every_frame": every_frame, **settings})


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    """Two ninths of a round, 3 cm a frame."""
    return list(circle_sequence(180, 160, 120)[:FRAMES])


def frame_of(view: SimulatedView) -> Frame:
    return Frame(view.stamp, view.image, view.camera)


def mapped(views: list[SimulatedView], every_frame: str, **errors: object) -> tuple[Mapper, list[MapUpdate]]:
    mapper = Mapper(configured(every_frame), PairsOfFrames(views, size=160, **errors))  # type: ignore[arg-type]
    return mapper, [mapper.add(frame_of(view)) for view in views]


def errors_of(views: list[SimulatedView], every_frame: str, **errors: object) -> tuple[float, float]:
    """Of the keyframes' depth (the newest has few frames yet), and of the frames' poses to their keyframe as they are tracked (rms, m)."""
    mapper = Mapper(configured(every_frame), PairsOfFrames(views, size=160, **errors))  # type: ignore[arg-type]
    truth, off = {view.stamp: view for view in views}, []
    for view in views:
        update = mapper.add(frame_of(view))
        assert update.state is not TrackingState.LOST
        keyframe = mapper.following.keyframe
        if keyframe is not None and update.pose is not None and not update.is_keyframe:
            off.append(pose_error(keyframe, update.pose, truth[keyframe.stamp], view))
    return float(np.mean(depth_errors(mapper, views)[:-1])), float(np.sqrt(np.mean(np.square(off))))


def pose_error(keyframe: Keyframe, pose: np.ndarray, true_keyframe: SimulatedView, true: SimulatedView) -> float:
    """Of a frame in its keyframe, m. The size is that of the keyframe's depth."""
    known = (keyframe.depth > 0) & (true_keyframe.depth > 0)
    unit = np.exp(np.median(np.log(true_keyframe.depth[known] / keyframe.depth[known])))
    relative = np.linalg.inv(keyframe.pose) @ pose
    return float(np.linalg.norm(unit * relative[:3, 3] - (np.linalg.inv(true_keyframe.pose) @ true.pose)[:3, 3]))


def depth_errors(mapper: Mapper, views: list[SimulatedView]) -> list[float]:
    """Of the keyframes that are still whole, from the second on: the first had no depth while it was followed. Shares of the depth."""
    truth, errors = {view.stamp: view.depth for view in views}, []
    for keyframe in list(mapper.keyframes)[1:]:
        true = truth[keyframe.stamp]
        known = (keyframe.depth > 0) & (true > 0) & (keyframe.confidence > 3)
        ratio = np.log(keyframe.depth[known] / true[known])
        errors.append(float((ratio - np.median(ratio)).std()))
    return errors


def between_keyframes(mapper: Mapper, views: list[SimulatedView]) -> list[int]:
    """Stamps of frames well away from the keyframes: the same frames become keyframes, whatever the pairs of these say."""
    taken = {keyframe.stamp for keyframe in mapper.keyframes}
    stamps = [view.stamp for view in views]
    return [b for a, b, c in zip(stamps, stamps[1:], stamps[2:], strict=False) if not taken & {a, b, c}]


def test_keyframes_and_frames_get_better_with_every_frame(views: list[SimulatedView]) -> None:
    alone, with_pairs = (
        np.mean([errors_of(views, every, seed=seed, **NOISE) for seed in range(2)], axis=0) for every in ("never", "always")
    )
    assert with_pairs[0] < 0.5 * alone[0]
    assert with_pairs[1] < 0.7 * alone[1]


def test_each_frame_that_is_no_keyframe_is_estimated_once(views: list[SimulatedView]) -> None:
    mapper, updates = mapped(views, "always")
    first = next(n for n, update in enumerate(updates) if update.state is TrackingState.TRACKING)
    assert ["pair" in update.seconds for update in updates[first + 1 :]] == [not u.is_keyframe for u in updates[first + 1 :]]
    assert not any("pair" in update.seconds for update in updates[: first + 1])  # there is no depth to refine
    assert mapper.estimator.encoded == len(mapper.keyframes) + sum("pair" in update.seconds for update in updates)


def test_pairs_that_are_astray_or_know_nothing_change_nothing(views: list[SimulatedView]) -> None:
    mapper, _ = mapped(views, "never", **NOISE)
    bad = between_keyframes(mapper, views)[::3]
    alone = errors_of(views, "never", **NOISE)
    for errors in ({"astray": bad}, {"unsure": bad}, {"outliers": 0.2}):
        spoilt = errors_of(views, "always", **NOISE, **errors)
        assert spoilt[0] < 0.75 * alone[0]
        assert spoilt[1] < alone[1]


def test_a_jump_that_points_cannot_be_followed_over_does_not_lose_the_camera(views: list[SimulatedView]) -> None:
    shown = [*views[:20], *views[28:]]
    _, without = mapped(shown, "never", noise=0.02)
    _, updates = mapped(shown, "always", noise=0.02)
    assert "found again" in without[20].reason
    assert without[20].found_again
    assert "by its pair" in updates[20].reason
    assert not updates[20].found_again
    assert updates[20].state is TrackingState.TRACKING
    moved = np.linalg.norm(updates[20].odometry[:3, 3] - updates[19].odometry[:3, 3])
    stood = np.linalg.norm(without[20].odometry[:3, 3] - without[19].odometry[:3, 3])
    assert moved > 5 * max(stood, 1e-3)  # the odometry has gone all the way
    assert errors_of(shown, "always", noise=0.02)[1] < errors_of(views, "never", noise=0.02)[1]


def test_auto_does_so_where_the_estimator_leaves_the_cpu_alone(views: list[SimulatedView]) -> None:
    def trajectory(setting: str, **given: object) -> list[tuple[int, np.ndarray]]:
        return mapped(views[:28], setting, **NOISE, **given)[0].trajectory()

    on_cpu, on_gpu = trajectory("auto"), trajectory("auto", beside_cpu=True)
    for found, same in ((on_cpu, trajectory("never")), (on_gpu, trajectory("always")), (on_gpu, trajectory("auto", beside_cpu=True))):
        assert all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in zip(found, same, strict=True))
    assert not np.array_equal(on_cpu[-1][1], on_gpu[-1][1])


class Live:
    """A LiveTracking whose mapping thread takes `slow` frames for each job."""

    def __init__(self, views: list[SimulatedView], every_frame: str, slow: int = 0, max_rate: float = 10.0, **errors: object) -> None:
        config = configured(every_frame, **{"keyframes.max_rate": max_rate})
        self.mapper = Mapper(config, PairsOfFrames(views, size=160, **errors))  # type: ignore[arg-type]
        self.jobs: list[Callable[[], None]] = []
        self.mapped: list[MapUpdate] = []
        self.front = LiveTracking(self.mapper, self.jobs.append, lambda update: None if update is None else self.mapped.append(update))
        self.updates: list[MapUpdate] = []
        self.off: list[float] = []  # m, of frames in the keyframe from which they are followed
        age, truth = 0, {view.stamp: view for view in views}
        for view in views:
            keyframe = self.mapper.following.keyframe
            self.updates.append(self.front.add(frame_of(view)))
            assert len(self.jobs) <= 1  # nothing queues
            if keyframe is not None and self.updates[-1].pose is not None:
                self.off.append(pose_error(keyframe, self.updates[-1].pose, truth[keyframe.stamp], view))
            age += bool(self.jobs)
            if age > slow:
                age = 0
                self.jobs.pop()()
        self.front.hand_in()


def test_live_frames_and_keyframes_get_better_too(views: list[SimulatedView]) -> None:
    alone, with_pairs = [], []
    for seed in range(2):
        for setting, errors in (("never", alone), ("always", with_pairs)):
            live = Live(views, setting, seed=seed, **NOISE)
            errors.append((np.mean(depth_errors(live.mapper, views)[:-1]), np.sqrt(np.mean(np.square(live.off)))))
            odometry = [update.odometry for update in live.updates if update.odometry is not None]
            steps = np.array([np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in itertools.pairwise(odometry)])
            assert steps.max() < 1.5 * np.median(steps)  # what pairs correct goes into map -> odom
    depth, pose = np.mean(alone, axis=0)
    refined_depth, refined_pose = np.mean(with_pairs, axis=0)
    assert refined_depth < 0.5 * depth
    assert refined_pose < 0.8 * pose


def test_live_a_keyframe_that_is_due_goes_before_and_frames_meanwhile_are_not_estimated(views: list[SimulatedView]) -> None:
    slow = 2
    live, alone = Live(views, "always", slow, **NOISE), Live(views, "never", slow, **NOISE)
    paired = [update for update in live.mapped if "pair" in update.seconds]
    assert 4 < len(paired) <= FRAMES // (slow + 1)
    assert not any(update.is_keyframe for update in paired)
    assert abs(len(live.mapper.keyframes) - len(alone.mapper.keyframes)) <= 1
    first = next(n for n, update in enumerate(live.updates) if update.pose is not None)
    assert all(update.pose is not None for update in live.updates[first:])
    stamps = [stamp for stamp, _ in live.mapper.trajectory()]
    assert len(set(stamps)) == len(stamps)


def test_live_a_cpu_is_left_to_tracking_unless_it_is_asked_for(views: list[SimulatedView]) -> None:
    assert not any("pair" in update.seconds for update in Live(views[:30], "auto").mapped)
    assert any("pair" in update.seconds for update in Live(views[:30], "auto", beside_cpu=True).mapped)


def test_live_a_jump_is_bridged_by_the_first_pair(views: list[SimulatedView]) -> None:
    live = Live([*views[:20], *views[28:]], "always", noise=0.02)
    assert any("by its pair" in update.reason for update in live.mapped)
    assert [update.state for update in live.updates].count(TrackingState.LOST) <= 1


def test_live_a_frame_placed_by_its_pair_alone_is_no_keyframe_and_the_next_one_is_due_as_before(views: list[SimulatedView]) -> None:
    live = Live([*views[:20], *views[28:]], "always", max_rate=1.0, noise=0.02)
    alone = next(update.frame.stamp for update in live.mapped if "by its pair" in update.reason)
    keyframes = [keyframe.stamp for keyframe in live.mapper.keyframes]
    assert any(alone < stamp < alone + 900_000_000 for stamp in keyframes)  # a second after the last keyframe, which was before
