"""A map that was saved without a scale becomes metric while a camera is only localised in it; one that has a scale keeps it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator
from support.walk import once_round, wheels

from dust3r_ros.geometry import procrustes
from dust3r_ros.io.map_file import load_map, save_map
from dust3r_ros.mapping import Frame, Localiser, Mapper, MapperConfig, MapSnapshot, MapUpdate, depth_of_ranges
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.simulation import SimulatedView

CONFIG = with_settings(MapperConfig(), {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02})
LATER = 60_000_000_000


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return once_round()


@pytest.fixture(scope="module")
def snapshot(views: list[SimulatedView]) -> MapSnapshot:
    mapper = Mapper(CONFIG, SimulatedEstimator(views, size=160, noise=0.02))
    for view in views:
        mapper.add(Frame(view.stamp, view.image, view.camera))
    return mapper.snapshot()


def localiser_in(snapshot: MapSnapshot, views: list[SimulatedView]) -> Localiser:
    return Localiser(CONFIG, SimulatedEstimator(views, size=160, noise=0.02), snapshot)


def drive(localiser: Localiser, views: list[SimulatedView]) -> list[MapUpdate]:
    updates = []
    for view, pose in zip(views, wheels(views, 0.05), strict=True):
        localiser.add_odometry(view.stamp + LATER, pose)
        updates.append(localiser.add(Frame(view.stamp + LATER, view.image, view.camera)))
    return updates


def metres_left(localiser: Localiser, views: list[SimulatedView]) -> float:
    """Metres per map unit by the best similarity of all frames onto the truth."""
    truth = {view.stamp + LATER: view.pose[:3, 3] for view in views}
    found = localiser.trajectory()
    return procrustes(np.stack([pose[:3, 3] for _, pose in found]), np.stack([truth[stamp] for stamp, _ in found])).scale


def test_wheels_make_a_loaded_map_metric_and_nothing_jumps(views: list[SimulatedView], snapshot: MapSnapshot, tmp_path: Path) -> None:
    localiser = localiser_in(snapshot, views)
    unit = metres_of(snapshot, views)
    assert abs(unit - 1.0) > 0.2  # it has something to find
    version = localiser.tiles().version
    updates = drive(localiser, views)
    assert localiser.scale.source == "odometry"
    assert localiser.scale.uncertainty < 0.05
    assert metres_left(localiser, views) == pytest.approx(1.0, abs=0.04)
    assert sum(update.corrected for update in updates) >= 1
    assert localiser.tiles(version).is_whole

    # All of the map grew, and the keyframe that a frame was followed from.
    now = localiser.snapshot()
    assert now.scale_source == "odometry"
    assert metres_of(now, views) == pytest.approx(1.0, abs=0.04)
    factor = unit / metres_of(now, views)
    np.testing.assert_allclose(now.cloud.points, snapshot.cloud.points * factor, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(localiser.standpoints[0].depth, np.median(now.keyframes[0].depth[now.keyframes[0].depth > 0]), rtol=1e-5)
    steps = np.array([np.linalg.norm(b.odometry[:3, 3] - a.odometry[:3, 3]) for a, b in pairwise(updates) if a.odometry is not None])
    assert steps.max() < 2 * factor * np.median(steps)  # metres from then on, map units before
    scale = localiser.scale
    localiser.reset()
    assert localiser.scale == scale
    assert localiser.snapshot().scale_source == "odometry"
    save_map(tmp_path / "metric.map", now)
    again = localiser_in(load_map(tmp_path / "metric.map"), views)
    assert again.scale.source == "odometry"

    # As found, it stays: another session does not move it.
    saved = again.snapshot()
    drive(again, views[:12])
    assert again.snapshot() is saved


def test_a_few_ranges_do_it_too(views: list[SimulatedView], snapshot: MapSnapshot) -> None:
    localiser, rng = localiser_in(snapshot, views), np.random.default_rng(1)
    for view in views[:36]:
        pixels = np.column_stack([rng.integers(0, 160, 30), rng.integers(0, 120, 30)])
        depth, rays = view.depth[pixels[:, 1], pixels[:, 0]], view.camera.rays()[pixels[:, 1], pixels[:, 0]]
        localiser.add(Frame(view.stamp, view.image, view.camera))
        localiser.add_depth(view.stamp, depth_of_ranges(view.camera, pixels, depth * np.linalg.norm(rays, axis=1)))  # late
    assert localiser.scale.source == "depth"
    assert metres_of(localiser.snapshot(), views) == pytest.approx(1.0, abs=0.03)


def test_what_nobody_measured_stays_byte_for_byte(views: list[SimulatedView], snapshot: MapSnapshot) -> None:
    localiser = localiser_in(snapshot, views)
    for view in views[:8]:
        localiser.add(Frame(view.stamp, view.image, view.camera))
    assert localiser.snapshot() is snapshot
    assert not localiser.scale.is_metric


def metres_of(snapshot: MapSnapshot, views: list[SimulatedView]) -> float:
    """Metres per map unit by the keyframes' depths."""
    true = {view.stamp: view for view in views}
    ratios = [np.median(true[k.stamp].depth) / np.median(k.depth[k.depth > 0]) for k in snapshot.keyframes]
    return float(np.median(ratios))


def test_the_readout_of_the_saved_map_counts_where_nobody_says_another(views: list[SimulatedView], snapshot: MapSnapshot) -> None:
    rolling, estimator = replace(snapshot, readout=0.03), SimulatedEstimator(views, size=160)
    assert Localiser(CONFIG, estimator, rolling).calibration.readout == 0.03
    assert Localiser(with_settings(CONFIG, {"estimator.readout": 0.01}), estimator, rolling).calibration.readout == 0.01
    mapper = Mapper(CONFIG, estimator)
    mapper.restore(rolling)
    assert mapper.snapshot().readout == 0.03
