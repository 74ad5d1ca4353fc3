"""A restored map holds together as firmly as it did when it was saved: what a loop then moves, it moves in both alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.io.map_file import load_map, save_map
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, MapSnapshot
from dust3r_ros.mapping.config import MapConfig, with_settings
from dust3r_ros.mapping.points.saved_map import held_together, owners_of, whole_cloud
from dust3r_ros.simulation import SimulatedView, room_sequence

CONFIG = with_settings(MapperConfig(), {"window.size": 4, "window.scene_graph": "swin-2", "keyframes.min_parallax": 0.003})


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(frames=24, width=160, height=120, seed=1))


@pytest.fixture(scope="module")
def mapper(views: list[SimulatedView]) -> Mapper:
    mapper = Mapper(CONFIG, SimulatedEstimator(views, size=160, noise=0.02))
    for view in views:
        mapper.add(Frame(view.stamp, view.image, view.camera))
    return mapper


def test_a_snapshot_carries_every_pair_as_a_link_and_every_frame(mapper: Mapper) -> None:
    snapshot = mapper.snapshot()
    assert {(link.i, link.j) for link in snapshot.links} == {(min(edge), max(edge)) for edge in snapshot.edges}
    assert set(snapshot.frames) == {keyframe.index for keyframe in snapshot.keyframes}
    assert set(np.unique(snapshot.owners)) <= set(snapshot.frames)
    for link in snapshot.links:  # they tell what the map is, in the keyframes' own units
        told = snapshot.frames[link.i] @ link.relative
        assert np.linalg.norm(told.translation - snapshot.frames[link.j].translation) < 0.05
        assert told.scale == pytest.approx(snapshot.frames[link.j].scale, rel=0.05)


def test_restored_it_is_held_by_the_saved_links(mapper: Mapper, views: list[SimulatedView], tmp_path: Path) -> None:
    snapshot = mapper.snapshot()
    save_map(tmp_path / "room.map", snapshot)
    other = Mapper(CONFIG, SimulatedEstimator(views, size=160, noise=0.02))
    other.restore(load_map(tmp_path / "room.map"))
    again = other.snapshot()
    left = {(link.i, link.j): link for link in snapshot.links if not {link.i, link.j} <= set(snapshot.window)}
    found = {(link.i, link.j): link for link in again.links}
    assert len(left) > 5
    for pair, link in left.items():
        np.testing.assert_allclose(found[pair].information, link.information)
        np.testing.assert_allclose(found[pair].relative.matrix, link.relative.matrix, atol=1e-12)
    np.testing.assert_array_equal(again.owners, snapshot.owners)
    assert [(min(e), max(e)) for e in again.edges] == [(min(e), max(e)) for e in snapshot.edges]
    assert len(again.links) == len(snapshot.links)  # none is counted twice: the window's come anew, the others from the file
    before = {keyframe.index: keyframe.pose for keyframe in other.keyframes}
    other.align()
    moved = [np.linalg.norm(keyframe.pose[:3, 3] - before[keyframe.index][:3, 3]) for keyframe in other.keyframes]
    assert max(moved) < 0.02


def test_a_map_without_links_is_held_by_guessed_ones(mapper: Mapper, views: list[SimulatedView]) -> None:
    old = replace(mapper.snapshot(), links=(), frames={}, owners=None)
    frames, links = held_together(old)
    poses = {keyframe.index: keyframe.pose for keyframe in old.keyframes}
    assert set(frames) == set(poses)
    for link in links:
        wanted = np.linalg.inv(poses[link.i]) @ poses[link.j]
        np.testing.assert_allclose(link.relative.matrix, wanted, atol=1e-9)
    owners = owners_of(old)
    assert isinstance(owners, np.ndarray)
    assert len(owners) == len(old.cloud)
    other = Mapper(CONFIG, SimulatedEstimator(views, size=160))
    other.restore(old)
    assert len(other.snapshot().links) >= len(links)


def test_the_whole_cloud_of_a_saved_map_is_the_mappers(mapper: Mapper) -> None:
    mine = mapper.cloud()
    saved = whole_cloud(mapper.snapshot(), CONFIG.map)
    assert abs(len(saved) - len(mine)) < 0.01 * len(mine)
    assert len(whole_cloud(mapper.snapshot(), MapConfig(voxel_size=0.1))) < len(mine) / 3
    nothing = MapSnapshot((), (), replace(mine, points=mine.points[:0], colors=mine.colors[:0], confidence=mine.confidence[:0]), ())
    assert len(whole_cloud(nothing)) == 0
    assert owners_of(nothing) == -1
