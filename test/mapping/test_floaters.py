"""What hides in front of what other keyframes see stays out of the map, and what is there stays in it."""

from __future__ import annotations

import numpy as np
import pytest

from dust3r_ros.geometry import transform_points
from dust3r_ros.mapping import Keyframe
from dust3r_ros.mapping.config import MapConfig
from dust3r_ros.mapping.points.floaters import without_floaters
from dust3r_ros.mapping.points.map_points import MapPoints
from dust3r_ros.simulation import circle_sequence

PATCH = np.s_[100:140, 120:180]  # of the second keyframe: 60 % as far as it is


@pytest.fixture(scope="module")
def keyframes() -> list[Keyframe]:
    found = []
    for index, view in enumerate(list(circle_sequence(40, 320, 240))[:10:3]):
        confidence = np.full(view.depth.shape, 10.0, np.float32)
        depth = view.depth.copy()
        if index == 1:
            depth[PATCH] *= 0.6
            confidence[PATCH] = 4.0
        found.append(Keyframe(index, view.stamp, view.pose, view.camera, view.camera, view.image, depth, confidence))
    return found


def floating(points: np.ndarray, keyframe: Keyframe) -> int:
    """How many lie where the second keyframe's patch floats."""
    in_camera = transform_points(np.linalg.inv(keyframe.pose), points.astype(np.float64))
    u, v = keyframe.camera.project(in_camera).T
    rows, columns = PATCH
    inside = (in_camera[:, 2] > 0) & (u > columns.start) & (u < columns.stop - 1) & (v > rows.start) & (v < rows.stop - 1)
    there = keyframe.depth[PATCH]
    return int((inside & (in_camera[:, 2] < 1.1 * there.max()) & (in_camera[:, 2] > 0.9 * there.min())).sum())


def test_a_patch_that_others_see_through_is_condemned_and_nothing_else(keyframes: list[Keyframe]) -> None:
    judged = without_floaters(keyframes, [0, 1, 2, 3])
    assert (judged[1].confidence[PATCH][2:-2, 2:-2] <= 1).mean() > 0.95
    elsewhere = np.ones(keyframes[1].depth.shape, bool)
    elsewhere[PATCH] = False
    assert (judged[1].confidence[elsewhere] <= 1).mean() < 0.01
    for n in (0, 2, 3):
        assert (judged[n].confidence <= 1).mean() < 0.01
    assert [k.index for k in without_floaters(keyframes, [2])] == [2]
    assert without_floaters(keyframes[1:2], [0])[0] is keyframes[1]  # nobody to ask


@pytest.mark.parametrize("fused", [True, False])
def test_the_map_is_without_it_for_good_and_in_the_window(keyframes: list[Keyframe], fused: bool) -> None:
    counts = []
    for remove in (True, False):
        points = MapPoints(MapConfig(voxel_size=0.01, remove_floaters=remove))
        if fused:
            points.fuse(keyframes[1], keyframes)
        counts.append(floating(points.cloud(keyframes[1:2] if fused else keyframes).points, keyframes[1]))
    assert counts[1] > 200
    assert counts[0] < 0.1 * counts[1]
