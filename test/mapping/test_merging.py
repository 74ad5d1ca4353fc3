"""Two maps of the same room, each on its own scale and in its own frame, in one; and maps that must not be joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.geometry import Similarity, procrustes, rotation_angle
from dust3r_ros.io.map_file import load_map, save_map
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, MapSnapshot, with_settings
from dust3r_ros.mapping.merging import MergeError, carry, merge_maps
from dust3r_ros.simulation import SimulatedView, corridor_sequence, room_sequence

CONFIG = with_settings(
    MapperConfig(), {"window.size": 3, "keyframes.min_parallax": 0.008, "map.voxel_size": 0.02, "alignment.loops": False}
)
APART = Similarity(1.7, np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([5.0, -3.0, 2.0]))


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(54, 160, 120))


@pytest.fixture(scope="module")
def estimator(views: list[SimulatedView]) -> SimulatedEstimator:
    return SimulatedEstimator(views, size=160, noise=0.01)


def mapped(views: list[SimulatedView], estimator: SimulatedEstimator) -> MapSnapshot:
    mapper = Mapper(CONFIG, estimator)
    for view in views:
        mapper.add(Frame(view.stamp, view.image, view.camera))
    return mapper.snapshot()


@pytest.fixture(scope="module")
def maps(views: list[SimulatedView], estimator: SimulatedEstimator) -> tuple[MapSnapshot, MapSnapshot]:
    """The first 36 views, and the last 36 in another world: 18 are in common."""
    return mapped(views[:36], estimator), carry(mapped(views[18:], estimator), APART)


def errors(snapshot: MapSnapshot, views: list[SimulatedView]) -> np.ndarray:
    """[N] metres from the truth, of all keyframes after one similarity."""
    truth = {view.stamp: view.pose[:3, 3] for view in views}
    found, true = (np.array(rows) for rows in zip(*[(k.pose[:3, 3], truth[k.stamp]) for k in snapshot.keyframes], strict=True))
    return np.linalg.norm(procrustes(found, true).apply(found) - true, axis=1)


def test_one_map_comes_out_in_the_frame_and_on_the_scale_of_the_first(maps, views, estimator) -> None:
    first, second = maps
    merged = merge_maps(first, second, estimator, CONFIG.map)
    whole = merged.snapshot
    assert len(whole.keyframes) == len(first.keyframes) + len(second.keyframes)
    assert len({k.index for k in whole.keyframes}) == len(whole.keyframes)
    assert errors(whole, views).max() < 0.01
    np.testing.assert_allclose(whole.keyframes[0].pose, first.keyframes[0].pose, atol=1e-9)
    truth = {view.stamp: view for view in views}
    scales = [np.median(k.depth[k.depth > 0]) / np.median(truth[k.stamp].depth) for k in whole.keyframes]
    np.testing.assert_allclose(scales, np.median(scales), rtol=0.03)
    back = merged.to_first @ APART  # from the second as it was mapped: no more than a scale and the first frame's pose
    assert merged.to_first.scale == pytest.approx(back.scale / 1.7)
    assert merged.found >= 3
    of_first = {k.index for k in first.keyframes}
    assert all((i in of_first) != (j in of_first) for i, j in merged.joined)


def test_points_and_links_of_both_are_there_once(maps, views, estimator) -> None:
    first, second = maps
    merged = merge_maps(first, second, estimator, CONFIG.map)
    whole = merged.snapshot
    assert len(whole.links) == len(first.links) + len(second.links) + len(merged.joined)
    assert len(first.cloud) < len(whole.cloud)
    assert set(np.unique(whole.owners)) <= set(whole.frames)
    # Both maps' points lie on the room's surfaces: those of the second did not stay where they were.
    truth = {view.stamp: view for view in views}
    found, true = (np.array(rows) for rows in zip(*[(k.pose[:3, 3], truth[k.stamp].pose[:3, 3]) for k in whole.keyframes], strict=True))
    points = procrustes(found, true).apply(whole.cloud.points)
    from scipy.spatial import cKDTree

    surface = np.concatenate([(v.camera.rays() * v.depth[..., None]).reshape(-1, 3) @ v.pose[:3, :3].T + v.pose[:3, 3] for v in views[::6]])
    assert np.quantile(cKDTree(surface).query(points)[0], 0.9) < 0.06


def test_the_joined_map_is_saved_loaded_and_gone_on_from(maps, views, estimator, tmp_path) -> None:
    save_map(tmp_path / "joined.map", merge_maps(*maps, estimator, CONFIG.map).snapshot)
    mapper = Mapper(CONFIG, estimator)
    mapper.restore(load_map(tmp_path / "joined.map"))
    count = len(mapper.keyframes)
    newest = views[-1].stamp
    for k, view in enumerate(reversed(views[30:])):  # the camera goes back the way it came
        mapper.add(Frame(newest + (k + 1) * 10**8, view.image, view.camera))
    assert len(mapper.keyframes) > count
    mapper.align()
    truth = {newest + (k + 1) * 10**8: view for k, view in enumerate(reversed(views[30:]))} | {view.stamp: view for view in views}
    again = [replace(view, stamp=stamp) for stamp, view in truth.items()]
    assert errors(mapper.snapshot(), again).max() < 0.03


def test_maps_of_different_places_are_refused(maps, estimator, views) -> None:
    elsewhere = list(corridor_sequence(12, 160, 120))
    other = mapped(elsewhere, SimulatedEstimator(elsewhere, size=160))
    both = SimulatedEstimator([*views, *elsewhere], size=160)
    with pytest.raises(MergeError, match=r"0 of \d+ keyframes of the second map were found.*in common"):
        merge_maps(maps[0], other, both)
    for nothing in ((replace(other, keyframes=()), maps[0]), (maps[0], replace(other, keyframes=()))):
        with pytest.raises(MergeError, match="has no keyframes"):
            merge_maps(*nothing, estimator)


def test_a_map_that_disagrees_with_itself_is_refused(maps, estimator) -> None:
    """The second map's keyframes stand anywhere: each is found in the first, but no two tell of one similarity."""
    first, second = maps
    rng = np.random.default_rng(3)
    scattered = tuple(replace(k, pose=Similarity(1, np.eye(3), rng.normal(0, 8, 3)).apply_pose(k.pose)) for k in second.keyframes)
    with pytest.raises(MergeError, match="disagree"):
        merge_maps(first, replace(second, keyframes=scattered), estimator)


def test_carrying_a_map_carries_all_of_it(maps) -> None:
    first, _ = maps
    moved = carry(first, APART, 100)
    assert [k.index for k in moved.keyframes] == [k.index + 100 for k in first.keyframes]
    np.testing.assert_allclose(moved.cloud.points, APART.apply(first.cloud.points), atol=1e-5)
    for before, after in zip(first.keyframes, moved.keyframes, strict=True):
        np.testing.assert_allclose(after.depth, 1.7 * before.depth, rtol=1e-6)
        assert rotation_angle(after.pose[:3, :3].T @ APART.rotation @ before.pose[:3, :3]) < 1e-9
    for link in moved.links:  # still tells what the frames are
        told = moved.frames[link.i] @ link.relative
        assert np.linalg.norm(told.translation - moved.frames[link.j].translation) < 0.1
