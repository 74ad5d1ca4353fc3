"""A camera that comes back: the loop is found, the drift goes out of keyframes, frames and map, and the odometry does not jump."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.geometry import Similarity, procrustes, rotation_angle
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, MapUpdate
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.mapping.places.loops import LoopFinder
from dust3r_ros.mapping.points.voxel_map import VoxelMap
from dust3r_ros.mapping.tracking.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.types import PointCloud
from dust3r_ros.simulation import SimulatedView, circle_sequence, ring_sequence

FRAMES, AGAIN, PERIOD = 110, 26, 100_000_000
BEND = 0.01  # radians that neighbouring keyframes turn too far
CONFIG = with_settings(MapperConfig(), {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02})


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    """Once round the room and a little further, until a keyframe stands about where an old one did."""
    once = list(circle_sequence(FRAMES, 160, 120))
    return once + [replace(view, stamp=view.stamp + FRAMES * PERIOD) for view in once[:AGAIN]]


def mapped(views: Sequence[SimulatedView], background: bool = False, **changes: object) -> tuple[Mapper, list[MapUpdate]]:
    estimator = SimulatedEstimator(views[:FRAMES], size=160, noise=0.01, bend=BEND)
    mapper = Mapper(with_settings(CONFIG, changes), estimator, background)
    return mapper, [mapper.add(Frame(view.stamp, view.image, view.camera)) for view in views]


def error(mapper: Mapper, views: Sequence[SimulatedView]) -> float:
    """RMSE of all frames' positions after the best similarity, metres."""
    truth = {view.stamp: view.pose[:3, 3] for view in views}
    found = mapper.trajectory()
    positions, true = np.stack([pose[:3, 3] for _, pose in found]), np.stack([truth[stamp] for stamp, _ in found])
    return float(np.sqrt(((procrustes(positions, true).apply(positions) - true) ** 2).sum(1).mean()))


def test_a_loop_halves_the_drift_of_every_frame_and_the_odometry_stays_smooth(views: list[SimulatedView]) -> None:
    mapper, updates = mapped(views)
    without, _ = mapped(views, **{"alignment.loops": False})
    joined = [loop for update in updates for loop in update.loops]
    assert joined
    true = {view.stamp: view.pose for view in views}
    stamps = {keyframe.index: keyframe.stamp for keyframe in mapper.keyframes}
    for old, new in joined:
        assert np.linalg.norm(true[stamps[old]][:3, 3] - true[stamps[new]][:3, 3]) < 0.5
    assert error(mapper, views) < 0.6 * error(without, views)
    closing = next(n for n, update in enumerate(updates) if update.loops)
    assert updates[closing].corrected
    steps = [
        np.linalg.norm(b.odometry[:3, 3] - a.odometry[:3, 3])
        for a, b in pairwise(updates)
        if a.odometry is not None and b.odometry is not None
    ]
    before, after = (u.pose @ np.linalg.inv(u.odometry) for u in updates[closing - 1 : closing + 1])
    assert rotation_angle(before[:3, :3].T @ after[:3, :3]) > 0.02  # what the map turned by, the odometry did not
    assert max(steps) < 2 * np.median(steps)


class BlindToOldOnes(SimulatedEstimator):
    """Cannot compare a keyframe with one that has left the window."""

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        if any(abs(i - j) > CONFIG.window.size for i, j in pairs):
            raise RuntimeError("no kernel for this pair")
        return super().estimate(views, pairs)


def test_where_old_keyframes_cannot_be_compared_the_map_goes_on_without_loops(
    views: list[SimulatedView], caplog: pytest.LogCaptureFixture
) -> None:
    mapper = Mapper(CONFIG, BlindToOldOnes(views[:FRAMES], size=160, noise=0.01, bend=BEND))
    updates = [mapper.add(Frame(view.stamp, view.image, view.camera)) for view in views]
    assert "no kernel for this pair" in caplog.text
    assert not any(update.loops for update in updates)
    without, _ = mapped(views, **{"alignment.loops": False})
    assert len(mapper.keyframes) == len(without.keyframes)
    assert error(mapper, views) == pytest.approx(error(without, views), rel=1e-6)


def test_a_way_that_drifted_further_than_it_sees_is_closed() -> None:
    """The keyframes just passed stand where the graph has the camera, and agree that it is there: they drifted with it."""
    once = ring_sequence(155, 96, 72, cells=3)  # 38 m round a block
    views = [replace(view, stamp=(n + 1) * PERIOD) for n, view in enumerate([*once, *list(once)[:14]])]
    mapper = Mapper(with_settings(CONFIG, {"map.voxel_size": 0.1}), SimulatedEstimator(views, size=96, noise=0.01, bend=0.007))
    for view in views:
        mapper.add(Frame(view.stamp, view.image, view.camera))
    assert error(mapper, views) < 0.2  # 0.97 if nothing is joined


def test_in_the_background_it_comes_out_the_same_a_little_later(views: list[SimulatedView]) -> None:
    mapper, _ = mapped(views)
    live, updates = mapped(views, background=True)
    assert any(update.loops for update in updates)
    late = [replace(views[AGAIN - 1], stamp=views[-1].stamp + n * PERIOD) for n in range(1, 60)]
    for view in late:  # a camera that stands; the last result comes in with some image
        live.add(Frame(view.stamp, view.image, view.camera))
    assert error(live, [*views, *late]) == pytest.approx(error(mapper, views), rel=0.3)


def test_a_place_never_seen_before_is_no_loop() -> None:
    finder, rng = LoopFinder(), np.random.default_rng(0)
    pictures = [np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8) for _ in range(12)]
    camera = circle_sequence(1, 80, 60).camera
    for index, picture in enumerate(pictures[:10]):
        finder.remember(index, picture, camera)
    assert not finder.most_alike(100, pictures[11], 0.75)
    assert finder.most_alike(101, pictures[4], 0.75)[0][0] == 4
    assert not finder.most_alike(102, pictures[4], 0.75)  # tries are spread
    np.testing.assert_allclose(finder.picture(4).mean((0, 1)), pictures[4].mean((0, 1)), atol=3)
    finder.forget({*range(3, 10)})
    assert not finder.most_alike(200, pictures[4], 0.75)
    assert finder.most_alike(201, pictures[2], 0.75)[0][0] == 2


def test_voxels_move_with_the_keyframe_that_saw_them() -> None:
    rng = np.random.default_rng(1)
    clouds = [PointCloud(rng.random((50, 3)).astype(np.float32), np.full((50, 3), 9, np.uint8), np.ones(50, np.float32)) for _ in range(2)]
    voxels = VoxelMap(1e-3, 10_000)
    voxels.add(clouds[0], 3)
    voxels.add(clouds[1], 7)
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    voxels.move({7: Similarity(2.0, turn, np.array([10.0, 0.0, 0.0])), 8: Similarity(5.0, np.eye(3), np.zeros(3))})
    points = voxels.cloud().points
    wanted = np.concatenate([clouds[0].points, 2 * clouds[1].points @ turn.T + [10.0, 0, 0]])
    np.testing.assert_allclose(points[np.lexsort(points.T)], wanted[np.lexsort(wanted.T)], atol=1e-5)
    assert set(voxels.owners()) == {3, 7}
    voxels.move({3: Similarity(1e-6, np.eye(3), np.zeros(3))})  # all into one voxel
    assert len(voxels) == 51


def test_moves_too_small_for_a_voxel_add_up() -> None:
    rng = np.random.default_rng(1)
    points = rng.random((50, 3)).astype(np.float32)
    voxels = VoxelMap(0.01, 10_000)
    voxels.add(PointCloud(points, np.full((50, 3), 9, np.uint8), np.ones(50, np.float32)), 3)
    before = voxels.cloud().points
    for _ in range(2):
        voxels.move({3: Similarity(1.0, np.eye(3), np.array([0.001, 0, 0]))})
        np.testing.assert_array_equal(voxels.cloud().points, before)
    voxels.copy().move({3: Similarity(1.0, np.eye(3), np.array([0.1, 0, 0]))})  # what waits is each copy's own
    voxels.move({3: Similarity(1.0, np.eye(3), np.array([0.001, 0, 0]))})
    np.testing.assert_allclose(voxels.cloud().points.sum(0), before.sum(0) + np.array([50 * 0.003, 0, 0]), atol=1e-4)


def test_frames_grow_with_their_keyframe() -> None:
    trajectory, pose = FrameTrajectory(), np.eye(4)
    step = np.eye(4)
    step[0, 3] = 0.5
    trajectory.append(1, 0, step)
    before = trajectory.advance(0, step, {0: pose}).copy()
    assert trajectory.poses({0: pose}, units={0: 3.0})[0][1][0, 3] == pytest.approx(1.5)
    trajectory.rescaled({0: 3.0})
    larger = step.copy()
    larger[0, 3] = 1.5  # the same place, the map three times as large
    np.testing.assert_allclose(trajectory.advance(0, larger, {0: pose}), before)
