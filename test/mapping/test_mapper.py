"""The Mapper on a simulated sequence whose truth is known; the estimator is told the truth, so what is wrong here is the Mapper's own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, MapUpdate, TrackingState, depth_image, keyframe_cloud
from dust3r_ros.mapping.config import ConfigError, with_settings
from dust3r_ros.mapping.mapper import FrameError, StampError
from dust3r_ros.simulation import SimulatedView, room_sequence

FRAMES = 24
CONFIG = with_settings(
    MapperConfig(), {"window.size": 4, "window.scene_graph": "swin-2", "keyframes.min_parallax": 0.003, "map.voxel_size": 0.02}
)


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(frames=FRAMES, width=160, height=120, seed=1))


def frame_of(view: SimulatedView, **changes: object) -> Frame:
    return replace(Frame(view.stamp, view.image, view.camera), **changes)


def mapped(views: list[SimulatedView], **errors: object) -> tuple[Mapper, list[MapUpdate]]:
    mapper = Mapper(CONFIG, SimulatedEstimator(views, **errors))  # type: ignore[arg-type]
    return mapper, [mapper.add(frame_of(view)) for view in views]


def position_errors(trajectory: list[tuple[int, np.ndarray]], views: list[SimulatedView]) -> np.ndarray:
    """Distance to the truth in its own unit, after the scale that fits best; both start at the first camera."""
    truth = {view.stamp: np.linalg.inv(views[0].pose) @ view.pose for view in views}
    found = np.stack([pose[:3, 3] for _, pose in trajectory])
    true = np.stack([truth[stamp][:3, 3] for stamp, _ in trajectory])
    return np.linalg.norm(found * ((found * true).sum() / (found**2).sum()) - true, axis=1)


def extent(views: list[SimulatedView]) -> float:
    return float(np.ptp(np.stack([view.pose[:3, 3] for view in views]), axis=0).max())


def test_every_frame_gets_the_right_pose(views: list[SimulatedView]) -> None:
    mapper, updates = mapped(views)
    trajectory = mapper.trajectory()
    assert [stamp for stamp, _ in trajectory] == [view.stamp for view in views]
    assert position_errors(trajectory, views).max() < 0.02 * extent(views)
    assert updates[-1].state is TrackingState.TRACKING
    assert 4 < len(mapper.keyframes) < FRAMES
    assert [u.is_keyframe for u in updates].count(True) == len(mapper.keyframes) - 1  # the first waits for the second


def test_each_image_is_encoded_once_and_only_if_it_is_a_keyframe(views: list[SimulatedView]) -> None:
    estimator = SimulatedEstimator(views)
    mapper = Mapper(with_settings(CONFIG, {"alignment.loops": False}), estimator)
    for view in views:
        mapper.add(frame_of(view))
    assert estimator.encoded == len(mapper.keyframes)


def test_one_unit_is_the_first_keyframes_median_depth(views: list[SimulatedView]) -> None:
    _mapper, updates = mapped(views)
    first = next(u for u in updates if u.is_keyframe).keyframes[0]
    assert np.median(first.depth[first.depth > 0]) == pytest.approx(1.0, rel=1e-3)


def test_all_depths_are_on_one_scale(views: list[SimulatedView]) -> None:
    _, updates = mapped(views)
    truth = {view.stamp: view.depth for view in views}
    newest = {k.index: k for u in updates for k in u.keyframes}
    scales = []
    for keyframe in newest.values():
        depth, _ = depth_image(keyframe)
        assert depth.shape == truth[keyframe.stamp].shape
        scales.append(np.median((depth / truth[keyframe.stamp])[depth > 0]))
    np.testing.assert_allclose(scales, np.median(scales), rtol=0.02)


def test_the_map_lies_on_the_truth(views: list[SimulatedView]) -> None:
    mapper, _ = mapped(views)
    truth = np.concatenate([(v.camera.rays() * v.depth[..., None]).reshape(-1, 3) @ v.pose[:3, :3].T + v.pose[:3, 3] for v in views[::4]])
    in_first = (truth - views[0].pose[:3, 3]) @ views[0].pose[:3, :3]
    scale = np.median(mapper.keyframes[0].depth[mapper.keyframes[0].depth > 0])
    cloud = mapper.cloud()
    assert len(cloud) > 500
    unit = np.median(views[0].depth) / scale
    distances = [np.linalg.norm(in_first - point, axis=1).min() for point in cloud.points[:: len(cloud) // 200].astype(np.float64) * unit]
    assert np.median(distances) < 0.03 * np.median(views[0].depth)


def test_the_odometry_never_jumps_though_the_map_does(views: list[SimulatedView]) -> None:
    _, updates = mapped(views, noise=0.03)
    odometry = [u.odometry for u in updates if u.odometry is not None]
    steps = np.array([np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in itertools.pairwise(odometry)])
    assert steps.max() < 4 * np.median(steps)


def test_the_window_slides_and_what_leaves_it_is_small(views: list[SimulatedView]) -> None:
    mapper, updates = mapped(views)
    assert max(len(u.keyframes) for u in updates) <= CONFIG.window.size + 1
    whole = [k for k in mapper.keyframes if k.index in mapper.snapshot().window]
    assert len(whole) == CONFIG.window.size
    assert len(mapper.keyframes) > len(whole)
    assert all(mapper.cloud().confidence >= CONFIG.map.min_confidence)


def test_edges_are_the_scene_graphs(views: list[SimulatedView]) -> None:
    mapper, updates = mapped(views)
    count = len(mapper.keyframes)
    loops = {edge for update in updates for i, j in update.loops for edge in ((i, j), (j, i))}
    assert set(mapper.edges) - loops == {(i, j) for i in range(count) for j in range(count) if 1 <= abs(i - j) <= 2}


def test_the_same_frames_make_the_same_map(views: list[SimulatedView]) -> None:
    first, second = mapped(views, noise=0.02)[0], mapped(views, noise=0.02)[0]
    np.testing.assert_array_equal(first.cloud().points, second.cloud().points)
    np.testing.assert_array_equal([p for _, p in first.trajectory()], [p for _, p in second.trajectory()])


class FailingEstimator(SimulatedEstimator):
    """Out of memory, once, at one of its calls."""

    fails_at, calls = -1, 0

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        self.calls += 1
        if self.calls == self.fails_at:
            raise MemoryError("no room for these pairs")
        return super().estimate(views, pairs)


@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_an_estimator_that_fails_once_costs_one_image_and_not_the_map(views: list[SimulatedView], fails_at: int) -> None:
    estimator = FailingEstimator(views)
    estimator.fails_at = fails_at
    mapper, refused = Mapper(CONFIG, estimator), 0
    for view in views:
        try:
            mapper.add(frame_of(view))
        except MemoryError:
            refused += 1
    assert refused == 1
    assert position_errors(mapper.trajectory(), views).max() < 0.02 * extent(views)
    assert mapper.state is TrackingState.TRACKING
    window = mapper.keyframe_map.window
    assert len(window) == CONFIG.window.size
    assert all(mapper.keyframe_map.keyframe(index) is not None for index in window)
    assert len(mapper.align()) == len(mapper.keyframes) > CONFIG.window.size + 1


def test_a_camera_that_only_stands_still_makes_no_map(views: list[SimulatedView]) -> None:
    mapper = Mapper(CONFIG, SimulatedEstimator(views))
    updates = [mapper.add(frame_of(views[0], stamp=k * 10**8)) for k in range(10)]
    assert {u.state for u in updates} == {TrackingState.INITIALISING}
    assert not mapper.keyframes
    assert not mapper.trajectory()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_one_colour_images_wait_and_the_map_starts_after_them(views: list[SimulatedView], level: int) -> None:
    mapper = Mapper(CONFIG, SimulatedEstimator(views))
    blank = np.full_like(views[0].image, level)
    for k in range(3):
        assert "wait" in mapper.add(Frame(k, blank, views[0].camera)).reason
    for view in views:
        mapper.add(frame_of(view, stamp=view.stamp + 10**9))
    assert mapper.state is TrackingState.TRACKING


def test_blinded_in_mid_run_it_is_lost_keeps_the_map_and_goes_on(views: list[SimulatedView]) -> None:
    mapper = Mapper(CONFIG, SimulatedEstimator(views))
    for view in views[:12]:
        mapper.add(frame_of(view))
    points, here = len(mapper.cloud()), views[11].stamp
    for k in range(5):
        update = mapper.add(Frame(here + (k + 1) * 10**8, np.zeros_like(views[0].image), views[0].camera))
    assert update.state is TrackingState.LOST
    assert update.pose is None
    assert len(mapper.cloud()) == points
    for view in views[12:]:
        mapper.add(frame_of(view, stamp=view.stamp + 10**9))
    assert mapper.state is TrackingState.TRACKING
    assert len(mapper.cloud()) > points


def test_stamps_that_repeat_or_go_back_are_refused_and_nothing_is_lost(views: list[SimulatedView]) -> None:
    mapper, _ = mapped(views[:10])
    points = len(mapper.cloud())
    for stamp in (views[9].stamp, views[9].stamp - 10**9):
        with pytest.raises(StampError, match="in order"):
            mapper.add(frame_of(views[10], stamp=stamp))
    assert mapper.add(frame_of(views[10])).state is TrackingState.TRACKING
    assert len(mapper.cloud()) >= points


@pytest.mark.parametrize(
    "frame",
    [
        Frame(10**12, np.zeros((0, 0, 3), np.uint8)),
        Frame(10**12, np.zeros((60, 80), np.uint8)),
        Frame(10**12, np.zeros((60, 80, 3), np.float32)),  # type: ignore[arg-type]
        Frame(10**12, np.zeros((60, 80, 3), np.uint8), Camera(160, 120, 100.0, 100.0, 80.0, 60.0)),
    ],
)
def test_an_unusable_frame_is_refused_by_what_is_wrong(views: list[SimulatedView], frame: Frame) -> None:
    mapper, _ = mapped(views[:10])
    with pytest.raises(FrameError, match=r"shape|camera is 160x120 but its image 80x60"):
        mapper.add(frame)
    assert mapper.add(frame_of(views[10])).state is TrackingState.TRACKING


def test_an_image_of_another_size_goes_on_in_the_same_map(views: list[SimulatedView]) -> None:
    half = []
    for view in views[12:]:
        image, camera = cv2.resize(view.image, (80, 60), interpolation=cv2.INTER_AREA), view.camera.resized(80, 60)
        half.append(replace(view, image=image, camera=camera, depth=view.depth[::2, ::2]))
    both = [*views[:12], *half]
    mapper, _ = mapped(both)
    assert mapper.state is TrackingState.TRACKING
    assert {k.source.width for k in mapper.keyframes} == {160, 80}
    assert position_errors(mapper.trajectory(), both).max() < 0.05 * extent(views)


def test_a_saved_map_is_gone_on_from(views: list[SimulatedView]) -> None:
    estimator = SimulatedEstimator(views, size=160)  # the working image is the image: the estimator knows it again
    mapper = Mapper(CONFIG, estimator)
    for view in views[:12]:
        mapper.add(frame_of(view))
    snapshot, points = mapper.snapshot(), mapper.cloud().points
    other = Mapper(CONFIG, estimator)
    other.restore(snapshot)
    np.testing.assert_allclose(other.cloud().points, points, atol=1e-5)
    assert [k.index for k in other.keyframes] == [k.index for k in mapper.keyframes]
    for view in views[12:]:
        other.add(frame_of(view))
    assert other.state is TrackingState.TRACKING
    assert len(other.cloud()) > len(points)
    assert len({k.index for k in other.keyframes}) == len(other.keyframes)
    assert position_errors(other.trajectory(), views).max() < 0.03 * extent(views)


def test_align_solves_the_window_again(views: list[SimulatedView]) -> None:
    mapper, _ = mapped(views[:12])
    before = mapper.trajectory()
    assert len(mapper.align()) == CONFIG.window.size
    np.testing.assert_allclose([p for _, p in mapper.trajectory()], [p for _, p in before], atol=0.02)
    mapper.reset()
    assert mapper.align() == ()


def test_reset_forgets_everything(views: list[SimulatedView]) -> None:
    mapper, _ = mapped(views[:12])
    mapper.reset()
    assert (len(mapper.cloud()), mapper.keyframes, mapper.edges, mapper.trajectory()) == (0, (), (), [])
    assert mapper.state is TrackingState.INITIALISING
    assert mapper.add(frame_of(views[0])).state is TrackingState.INITIALISING  # earlier stamps are welcome again


def test_settings_change_while_it_runs(views: list[SimulatedView]) -> None:
    mapper, _ = mapped(views[:12])
    points = len(mapper.cloud())
    mapper.configure(with_settings(CONFIG, {"map.voxel_size": 0.1, "window.scene_graph": "complete"}))
    assert len(mapper.cloud()) < points / 3
    with pytest.raises(ConfigError, match="estimator"):
        mapper.configure(with_settings(CONFIG, {"estimator.size": 128}))


def test_keyframe_cloud_leaves_out_what_is_not_sure(views: list[SimulatedView]) -> None:
    mapper, _ = mapped(views, outliers=0.3)
    keyframe = mapper.keyframes[-1]
    sure = keyframe_cloud(keyframe, 5.0)
    assert 0.3 < len(sure) / keyframe.depth.size < 0.8
    assert sure.confidence.min() >= 5.0
