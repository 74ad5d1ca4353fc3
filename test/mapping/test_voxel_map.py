"""The voxel map: weighted means, order does not matter, and a bound that holds."""

import numpy as np
import pytest

from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.types import PointCloud
from dust3r_ros.mapping.voxel_map import VoxelMap


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
