"""A run whose keyframes go to the disk is the same run: same poses, loops and points, with few pictures in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.io.map_file import load_map, save_map
from dust3r_ros.mapping import Frame, Mapper, MapperConfig
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.mapping.storage.disk_shelf import PREFIX
from dust3r_ros.simulation import SimulatedView, circle_sequence

ROUND, AND_ON = 44, 16  # views
IN_MEMORY = 4
SETTINGS = {"window.size": 3, "window.scene_graph": "swin-2", "map.voxel_size": 0.05, "keyframes.max_rate": 0.0}


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(circle_sequence(ROUND, 96, 72))


def driven(views: list[SimulatedView], **settings: object) -> tuple[Mapper, int]:
    """Once round and on; how many loops were closed."""
    mapper = Mapper(with_settings(MapperConfig(), {**SETTINGS, **settings}), SimulatedEstimator(views, size=96, noise=0.01))
    loops = 0
    for n in range(ROUND + AND_ON):
        view = views[n % ROUND]
        loops += len(mapper.add(Frame((n + 1) * 100_000_000, view.image, view.camera)).loops)
    return mapper, loops


@pytest.fixture(scope="module")
def in_memory(views: list[SimulatedView]) -> tuple[Mapper, int]:
    return driven(views)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keyframes")


@pytest.fixture(scope="module")
def on_disk(views: list[SimulatedView], folder: Path) -> tuple[Mapper, int]:
    return driven(views, **{"map.folder": str(folder), "map.keyframes_in_memory": IN_MEMORY})


def test_it_is_the_same_run(in_memory: tuple[Mapper, int], on_disk: tuple[Mapper, int]) -> None:
    (one, loops), (other, others_loops) = in_memory, on_disk
    assert loops == others_loops > 0
    for (stamp, pose), (others_stamp, others_pose) in zip(one.trajectory(), other.trajectory(), strict=True):
        assert stamp == others_stamp
        np.testing.assert_array_equal(pose, others_pose)
    np.testing.assert_array_equal(one.cloud().points, other.cloud().points)
    assert len(one.keyframes) == len(other.keyframes) > 2 * IN_MEMORY
    for keyframe, others in zip(one.keyframes, other.keyframes, strict=True):
        np.testing.assert_allclose(keyframe.depth, others.depth, rtol=1e-6)
        np.testing.assert_array_equal(keyframe.image, others.image)


def test_few_pictures_are_in_memory_and_the_rest_are_files(on_disk: tuple[Mapper, int], folder: Path) -> None:
    mapper, _ = on_disk
    for shelf in (mapper.keyframe_map._store.shelf, mapper.keyframe_map._finder.shelf):
        assert len(shelf) - shelf.on_disk <= IN_MEMORY
    files = [file for file in folder.glob(f"{PREFIX}*/*") if file.name.isdigit()]
    assert len(files) >= 2 * (len(mapper.keyframes) - IN_MEMORY - 3)


def test_it_is_saved_whole_and_gone_on_from(on_disk: tuple[Mapper, int], tmp_path: Path) -> None:
    mapper, _ = on_disk
    save_map(tmp_path / "a.map", mapper.snapshot())
    snapshot = load_map(tmp_path / "a.map")
    assert [keyframe.index for keyframe in snapshot.keyframes] == list(mapper.standpoints)
    for saved, keyframe in zip(snapshot.keyframes, mapper.keyframes, strict=True):
        np.testing.assert_array_equal(saved.depth, keyframe.depth)
    restored = Mapper(mapper.config, mapper.estimator)
    restored.restore(snapshot)
    assert restored.keyframe_map._store.shelf.on_disk > 0
    np.testing.assert_allclose(
        [one.pose for one in restored.standpoints.values()], [one.pose for one in mapper.standpoints.values()], atol=1e-9
    )


def test_the_tiles_told_bit_by_bit_are_the_map(views: list[SimulatedView]) -> None:
    settings = {**SETTINGS, "map.tile_size": 0.25, "alignment.every": 4, "map.max_points_per_tile": 300}
    mapper = Mapper(with_settings(MapperConfig(), settings), SimulatedEstimator(views, size=96, noise=0.01))
    told, version, sizes = {}, None, []
    for n, view in enumerate(views[:24]):
        mapper.add(Frame((n + 1) * 100_000_000, view.image, view.camera))
        changes = mapper.tiles(version)
        assert changes.is_whole == (version is None)
        version = changes.version
        told.update(changes.changed)
        told = {name: part for name, part in told.items() if len(part)}
        sizes.append((len(changes.changed), len(told)))
    whole = mapper.tiles().changed
    assert told.keys() == whole.keys()
    for name, part in told.items():
        np.testing.assert_array_equal(part.points, whole[name].points)
        assert len(part) <= 300
    assert sum(len(part) for part in told.values()) == len(mapper.cloud()) == mapper.points
    assert not mapper.tiles(version).changed.keys() - version.open  # nothing new but the window's, which are told again
    assert min(changed / there for changed, there in sizes[6:]) < 0.9
