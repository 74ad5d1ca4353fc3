"""The voxel map: weighted means, order does not matter, and a bound that holds."""

import numpy as np
import pytest

from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.points.voxel_map import VoxelMap
from dust3r_ros.mapping.types import PointCloud


def cloud(points: object, confidence: object, colors: object = None) -> PointCloud:
    xyz = np.asarray(points, np.float32).reshape(-1, 3)
    rgb = np.zeros((len(xyz), 3), np.uint8) if colors is None else np.asarray(colors, np.uint8)
    return PointCloud(xyz, rgb, np.asarray(confidence, np.float32))


def random_cloud(count: int, seed: int, spread: float = 1.0) -> PointCloud:
    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 256, (count, 3))
    return cloud(rng.normal(0, spread, (count, 3)), 1 + rng.random(count) * 9, colors)


def test_points_of_one_voxel_become_their_weighted_mean() -> None:
    voxels = VoxelMap(1.0, 1000)
    voxels.add(cloud([[0.2, 0.2, 0.2]], [1.0], [[0, 100, 200]]))
    voxels.add(cloud([[0.6, 0.6, 0.6], [5.5, 0.5, 0.5]], [3.0, 2.0], [[100, 100, 0], [9, 9, 9]]))
    out = voxels.cloud()
    assert len(out) == 2
    np.testing.assert_allclose(out.points[0], [0.5, 0.5, 0.5], atol=1e-6)
    np.testing.assert_array_equal(out.colors[0], [75, 100, 50])
    assert out.confidence.tolist() == [3.0, 2.0]


def test_many_small_clouds_make_the_same_map_as_one_large() -> None:
    whole = random_cloud(5000, 0)
    at_once, bit_by_bit = VoxelMap(0.2, 100_000), VoxelMap(0.2, 100_000)
    at_once.add(whole)
    for part in np.array_split(np.arange(5000), 17):
        bit_by_bit.add(cloud(whole.points[part], whole.confidence[part], whole.colors[part]))
    np.testing.assert_allclose(at_once.cloud().points, bit_by_bit.cloud().points, atol=1e-5)
    np.testing.assert_allclose(at_once.cloud().confidence, bit_by_bit.cloud().confidence)


def test_every_point_lies_in_the_voxel_it_stands_for() -> None:
    voxels = VoxelMap(0.05, 100_000)
    voxels.add(random_cloud(2000, 1))
    cells = np.floor(voxels.cloud().points / 0.05)
    assert len(np.unique(cells, axis=0)) >= 0.999 * len(voxels)


def test_a_full_map_keeps_the_most_certain_points() -> None:
    voxels = VoxelMap(0.01, 1000)
    voxels.add(random_cloud(900, 2))
    strong = cloud(np.random.default_rng(3).normal(100, 1, (500, 3)), np.full(500, 1e4))
    voxels.add(strong)
    assert len(voxels) <= 1000
    assert int((voxels.cloud().confidence > 9e3).sum()) == 500


def test_points_that_are_not_finite_or_too_far_are_left_out() -> None:
    voxels = VoxelMap(1.0, 100)
    voxels.add(cloud([[np.nan, 0, 0], [np.inf, 0, 0], [1e9, 0, 0], [1, 1, 1]], [2.0, 2.0, 2.0, 2.0]))
    np.testing.assert_allclose(voxels.cloud().points, [[1, 1, 1]])


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_map_and_a_lone_point(count: int) -> None:
    voxels = VoxelMap(0.1, 100)
    voxels.add(random_cloud(count, 4))
    assert len(voxels.cloud()) == count


def test_a_copy_and_what_it_was_made_of_go_separate_ways() -> None:
    voxels = VoxelMap(0.1, 10_000)
    voxels.add(random_cloud(100, 5), 1)
    twin, before = voxels.copy(), voxels.cloud().points
    voxels.add(random_cloud(100, 5), 1)
    voxels.move({1: Similarity(1.0, np.eye(3), np.ones(3))})
    np.testing.assert_array_equal(twin.cloud().points, before)


def test_a_copy_does_not_share_what_is_added_later() -> None:
    voxels = VoxelMap(0.1, 10_000)
    voxels.add(random_cloud(100, 5))
    before = len(voxels)
    twin = voxels.copy()
    twin.add(random_cloud(500, 6))
    assert len(voxels) == before < len(twin)


def test_a_world_that_grows_takes_its_voxels_along() -> None:
    rng = np.random.default_rng(5)
    cloud = PointCloud(rng.uniform(-1, 1, (2000, 3)).astype(np.float32), np.zeros((2000, 3), np.uint8), np.full(2000, 5.0, np.float32))
    voxels = VoxelMap(0.1, 10_000)
    voxels.add(cloud, 7)
    voxels.move({7: Similarity(1.0, np.eye(3), np.array([0.01, 0.0, 0.0]))})  # waits: it is less than a quarter of a voxel
    before = voxels.cloud()
    voxels.grow(3.0)
    np.testing.assert_allclose(voxels.cloud().points, 3 * before.points, rtol=1e-5, atol=1e-5)
    voxels.add(PointCloud(3 * cloud.points, cloud.colors, cloud.confidence), 7)
    assert len(voxels) == len(before)  # into the voxels that were there
    voxels.move({7: Similarity(1.0, np.eye(3), np.array([0.06, 0.0, 0.0]))})
    np.testing.assert_allclose(voxels.cloud().points.mean(0), 3 * before.points.mean(0) + [0.06 + 0.03, 0, 0], atol=0.02)


def as_rows(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(points.T)]


def test_tiles_hold_what_one_piece_would() -> None:
    whole, tiled = VoxelMap(0.05, 100_000, tile_size=1e3), VoxelMap(0.05, 100_000, tile_size=0.5)
    for seed in range(3):
        for voxels in (whole, tiled):
            voxels.add(random_cloud(2000, seed), seed)
    turn = Similarity(1.1, np.eye(3), np.array([0.7, 0.0, 0.0]))
    for voxels in (whole, tiled):
        voxels.move({0: turn, 2: turn.inverse()})
    assert len(tiled.changed(-1)) > 20 > len(whole.changed(-1))
    np.testing.assert_allclose(as_rows(tiled.cloud().points), as_rows(whole.cloud().points), atol=1e-6)
    assert len(tiled) == len(tiled.cloud()) == len(tiled.owners()) == len(whole)


def test_every_tile_is_a_cube_of_the_world() -> None:
    voxels = VoxelMap(0.05, 100_000, tile_size=0.5)
    voxels.add(random_cloud(3000, 7))
    for name in voxels.changed(-1):
        points, corner = voxels.tile(name).points, np.array(name) * voxels.tile_size
        assert len(points)
        assert (points >= corner - 1e-5).all()
        assert (points <= corner + voxels.tile_size + 1e-5).all()


def test_a_tile_holds_its_most_certain_points_and_the_others_are_left_alone() -> None:
    voxels = VoxelMap(0.01, 100_000, tile_size=1.0, max_points_per_tile=100)
    far = cloud([[5.5, 0.5, 0.5]], [1.0])
    voxels.add(far)
    rng = np.random.default_rng(8)
    voxels.add(cloud(rng.random((500, 3)), np.arange(1.0, 501.0)))
    assert 50 <= len(voxels.tile((0, 0, 0))) <= 100
    assert voxels.tile((0, 0, 0)).confidence.min() > 400
    assert len(voxels.tile((5, 0, 0))) == 1


def test_what_changed_is_known_by_tile() -> None:
    voxels = VoxelMap(0.1, 100_000, tile_size=1.0)
    voxels.add(cloud([[0.5, 0.5, 0.5], [3.5, 0.5, 0.5]], [1.0, 1.0]), np.array([1, 2], np.int32))
    assert voxels.changed(-1) == voxels.changed(0) == {(0, 0, 0), (3, 0, 0)}
    first = voxels.version
    assert not voxels.changed(first)
    voxels.move({2: Similarity(1.0, np.eye(3), np.array([2.0, 0.0, 0.0])), 9: Similarity.identity()})
    assert voxels.changed(first) == {(3, 0, 0), (5, 0, 0)}
    assert not len(voxels.tile((3, 0, 0)))
    assert voxels.changed(-1) == {(0, 0, 0), (5, 0, 0)}  # who knows nothing yet has nothing to remove
    second = voxels.version
    voxels.add(cloud([[3.5, 0.5, 0.5]], [1.0]))
    assert voxels.changed(second) == {(3, 0, 0)}
    assert len(voxels.tile((3, 0, 0))) == 1


def test_a_full_map_says_which_tiles_lost_points() -> None:
    voxels = VoxelMap(0.01, 1000, tile_size=1.0)
    voxels.add(cloud(np.random.default_rng(1).random((900, 3)), np.full(900, 2.0)))
    version = voxels.version
    voxels.add(cloud(np.random.default_rng(2).random((400, 3)) + np.array([8.0, 0.0, 0.0]), np.full(400, 9.0)))
    assert len(voxels) == len(voxels.cloud()) <= 1000
    assert voxels.changed(version) == {(0, 0, 0), (8, 0, 0)}
    assert len(voxels.tile((8, 0, 0))) == 400
