"""The Mapper's map becomes metric: by wheels, a depth sensor, a few ranges, the height of the camera; the odometry does not jump."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.simulated_estimator import SimulatedEstimator
from support.walk import once_round, wheels

from dust3r_ros.geometry import procrustes
from dust3r_ros.io.map_file import load_map, save_map
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, MapUpdate, depth_of_ranges
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.simulation import SimulatedView, corridor_sequence
from dust3r_ros.simulation.room import room
from dust3r_ros.simulation.sequence import PERIOD, SimulatedSequence, camera_at

SETTINGS = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return once_round()


def make(views: list[SimulatedView], background: bool = False, **changes: object) -> Mapper:
    estimator = SimulatedEstimator(views, size=160, noise=0.02)
    return Mapper(with_settings(MapperConfig(), {**SETTINGS, **changes}), estimator, background)


def add(mapper: Mapper, view: SimulatedView) -> MapUpdate:
    return mapper.add(Frame(view.stamp, view.image, view.camera))


def scale_left(mapper: Mapper, views: list[SimulatedView]) -> float:
    """Metres per map unit by the best similarity of all frames onto the truth."""
    truth = {view.stamp: view.pose[:3, 3] for view in views}
    found = mapper.trajectory()
    return procrustes(np.stack([pose[:3, 3] for _, pose in found]), np.stack([truth[stamp] for stamp, _ in found])).scale


def test_wheels_with_noise_and_slip_make_it_metric_within_2_percent_after_5_m(views: list[SimulatedView]) -> None:
    mapper, updates = make(views), []
    for view, pose in zip(views, wheels(views, 0.05, slip=(11, 12, 30)), strict=True):
        mapper.add_odometry(view.stamp, pose)
        updates.append(add(mapper, view))
    assert mapper.scale.source == "odometry"
    assert mapper.scale.uncertainty < 0.05
    assert scale_left(mapper, views) == pytest.approx(1.0, abs=0.02)
    assert mapper.snapshot().scale_source == "odometry"

    # Keyframes, depths and points grew together.
    true = {view.stamp: view for view in views}
    ratios = [np.median(true[k.stamp].depth) / np.median(k.depth[k.depth > 0]) for k in mapper.keyframes]
    np.testing.assert_allclose(ratios, 1.0, atol=0.06)
    extent = np.ptp(mapper.cloud().points, axis=0).max()
    assert 2.0 < extent < 8.0

    # From the correction on the odometry moves in metres, and there it did not jump.
    placed = [(view, update) for view, update in zip(views, updates, strict=True) if update.odometry is not None]
    steps = np.array([np.linalg.norm(b.odometry[:3, 3] - a.odometry[:3, 3]) for (_, a), (_, b) in pairwise(placed)])
    true_steps = np.array([np.linalg.norm(b.pose[:3, 3] - a.pose[:3, 3]) for (a, _), (b, _) in pairwise(placed)])
    first = next(n for n, (_, update) in enumerate(placed) if update.corrected)
    assert np.median(steps[:first] / true_steps[:first]) < 0.7  # before: another unit
    np.testing.assert_allclose(steps[first:], true_steps[first:], rtol=0.35)
    assert np.median(steps[first:] / true_steps[first:]) == pytest.approx(1.0, abs=0.1)  # PnP on pictures this small is no better


def test_a_few_ranges_an_image_make_it_metric_within_1_percent(views: list[SimulatedView]) -> None:
    mapper, rng = make(views), np.random.default_rng(0)
    for view in views:
        pixels = np.stack([rng.integers(0, 160, 30), rng.integers(0, 120, 30)], axis=1)
        ranges = view.depth[tuple(pixels.T[::-1])] * np.linalg.norm(view.camera.unproject(pixels), axis=1)
        add(mapper, view)
        mapper.add_depth(view.stamp + 5_000_000, depth_of_ranges(view.camera, pixels, ranges * (1 + 0.02 * rng.normal(size=30))))  # late
    assert mapper.scale.source == "depth"
    assert scale_left(mapper, views) == pytest.approx(1.0, abs=0.01)


def test_the_height_of_the_camera_and_a_sensor_that_agree_are_fused_and_saved(views: list[SimulatedView], tmp_path) -> None:
    mapper = make(views, **{"scale.camera_height": 1.45})
    for view in views[:40]:
        mapper.set_up(view.pose[2, :3])
        mapper.add_depth(view.stamp, view.depth[::2, ::2])
        add(mapper, view)
    assert mapper.scale.source == "depth+height"
    save_map(tmp_path / "room.map", mapper.snapshot())
    again = make(views)
    again.restore(load_map(tmp_path / "room.map"))
    assert dataclasses.astuple(again.scale) == dataclasses.astuple(mapper.scale)


def test_the_height_alone_is_enough(views: list[SimulatedView]) -> None:
    mapper = make(views, **{"scale.source": "height", "scale.camera_height": 1.45, "scale.camera_pitch": 14.0})
    for view in views:
        add(mapper, view)
    assert mapper.scale.source == "height"
    assert scale_left(mapper, views) == pytest.approx(1.0, abs=0.03)


def test_a_height_that_is_put_right_while_the_map_grows_replaces_what_was_measured_by_the_wrong_one(views: list[SimulatedView]) -> None:
    mapper = make(views, **{"scale.source": "height", "scale.camera_height": 0.8, "scale.camera_pitch": 14.0})
    for view in views:
        add(mapper, view)
    assert scale_left(mapper, views) == pytest.approx(1.45 / 0.8, abs=0.06)
    mapper.configure(with_settings(mapper.config, {"scale.camera_height": 1.45}))
    back = [replace(view, stamp=views[-1].stamp + n * PERIOD) for n, view in enumerate(reversed(views), start=1)]
    for view in back:
        add(mapper, view)
    assert scale_left(mapper, [*views, *back]) == pytest.approx(1.0, abs=0.03)


class MetricEstimator(SimulatedEstimator):
    """Like a network that was trained to give metres: right up to a tenth."""

    metric = True


def test_a_metric_network_says_so_and_how_little_that_means(views: list[SimulatedView]) -> None:
    mapper = Mapper(with_settings(MapperConfig(), SETTINGS), MetricEstimator(views, size=160, noise=0.02, scales=False))
    for view in views[:40]:
        add(mapper, view)
    assert mapper.scale.source == "network"
    assert 0.1 <= mapper.scale.uncertainty < 0.12
    assert scale_left(mapper, views) == pytest.approx(1.0, abs=0.03)


def test_without_a_source_nothing_is_claimed(views: list[SimulatedView]) -> None:
    mapper = make(views)
    updates = [add(mapper, view) for view in views[:30]]
    assert not mapper.scale.is_metric
    assert not any(update.corrected for update in updates)
    assert mapper.snapshot().scale_source == "none"


def turning_on_the_spot(view: SimulatedView, frames: int) -> list[SimulatedView]:
    def pose(index: int) -> np.ndarray:
        return camera_at(view.pose[:3, 3], Rotation.from_euler("z", -0.06 * (index + 1)).as_matrix() @ view.pose[:3, 2])

    turned = SimulatedSequence(frames, 160, 120, 0, room, pose)
    return [replace(seen, stamp=view.stamp + (n + 1) * PERIOD) for n, seen in enumerate(turned)]


@pytest.mark.parametrize("spinning", [False, True])
def test_turning_and_standing_claim_nothing_though_wheels_jitter_or_spin(views: list[SimulatedView], spinning: bool) -> None:
    way = views[:15]  # too short for the wheels to be believed
    turned = turning_on_the_spot(way[-1], 20)
    standing = [replace(turned[-1], stamp=turned[-1].stamp + n * PERIOD) for n in range(1, 20)]
    mapper = Mapper(with_settings(MapperConfig(), SETTINGS), SimulatedEstimator([*way, *turned], size=160, noise=0.02))
    rng, odometry = np.random.default_rng(0), wheels(way)
    pose = odometry[0]
    for n, view in enumerate([*way, *turned, *standing]):
        pose = (odometry[n] if n < len(way) else pose).copy()
        pose[:3, 3] += 0.005 * rng.normal(size=3) + (0.15 * view.pose[:3, 2] if spinning and n >= len(way) + len(turned) else 0.0)
        mapper.add_odometry(view.stamp, pose)
        add(mapper, view)
    assert len(mapper.keyframes) > 5
    assert any(keyframe.stamp > way[-1].stamp for keyframe in mapper.keyframes)  # turning brought keyframes
    assert not mapper.scale.is_metric


def test_a_depth_image_of_another_shape_is_not_used_and_said_once(views: list[SimulatedView], caplog) -> None:
    mapper = make(views)
    for view in views[:25]:
        mapper.add_depth(view.stamp, view.depth[:, :80])
        add(mapper, view)
    assert not mapper.scale.is_metric
    assert caplog.text.count("80x120 is not aligned with the camera's image of 160x120") == 1


def test_a_reset_forgets_the_scale_and_the_next_map_finds_it_anew(views: list[SimulatedView]) -> None:
    mapper = make(views)
    for view in views[:20]:
        mapper.add_depth(view.stamp, view.depth)
        add(mapper, view)
    assert mapper.scale.is_metric
    mapper.reset()
    assert not mapper.scale.is_metric
    for view in views[20:40]:
        mapper.add_depth(view.stamp, view.depth)
        add(mapper, view)
    assert mapper.scale.source == "depth"
    assert scale_left(mapper, views) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_wheels_keep_the_scale_of_a_long_walk_even() -> None:
    """Each keyframe is a hundredth larger than the one before: after 20 m the map is nearly twice as large as at the start."""
    views = list(corridor_sequence(80, 160, 120))
    truth = {view.stamp: view.pose[:3, 3] for view in views}

    def error(with_wheels: bool) -> float:
        estimator = SimulatedEstimator(views, size=80, noise=0.02, growth=0.01)
        mapper = Mapper(with_settings(MapperConfig(), SETTINGS), estimator)
        for view, pose in zip(views, wheels(views, 0.05), strict=True):
            if with_wheels:
                mapper.add_odometry(view.stamp, pose)
            add(mapper, view)
        found = np.stack([pose[:3, 3] for _, pose in mapper.trajectory()])
        true = np.stack([truth[stamp] for stamp, _ in mapper.trajectory()])
        return float(np.sqrt(((procrustes(found, true).apply(found) - true) ** 2).sum(1).mean()))

    assert error(with_wheels=True) < 0.35 * error(with_wheels=False)


def test_a_map_that_becomes_metric_stays_as_dense_as_it_was(views: list[SimulatedView]) -> None:
    """Unless somebody said how large a voxel is."""
    for size, denser in ((0.0, False), (0.02, True)):
        mapper = make(views, **{"map.voxel_size": size})
        for view in views[:12]:
            add(mapper, view)
        before, extent = len(mapper.cloud()), np.ptp(mapper.cloud().points, axis=0)
        mapper.keyframe_map.rescale(0.2)
        np.testing.assert_allclose(np.ptp(mapper.cloud().points, axis=0), 0.2 * extent, rtol=0.1)
        assert (len(mapper.cloud()) < 0.5 * before) == denser
        again = Mapper(mapper.config, mapper.estimator)
        again.restore(mapper.snapshot())
        assert len(again.cloud()) == pytest.approx(len(mapper.cloud()), rel=0.1)
