"""A map that stays empty because its model is never sure enough says so, once."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping import Keyframe
from dust3r_ros.mapping.config import MapConfig
from dust3r_ros.mapping.points.map_points import MapPoints
from dust3r_ros.simulation import circle_sequence


def _keyframes(surest: list[float]) -> list[Keyframe]:
    view = next(iter(circle_sequence(40, 64, 48)))
    found = []
    for index, largest in enumerate(surest):
        confidence = np.ones(view.depth.shape, np.float32)
        confidence[10:30, 20:40] = largest
        found.append(Keyframe(index, view.stamp + index, view.pose, view.camera, view.camera, view.image, view.depth, confidence))
    return found


def test_model_that_is_never_sure_enough_is_named_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    points = MapPoints(MapConfig(voxel_size=0.05))
    with caplog.at_level(logging.WARNING):
        for keyframe in _keyframes([1.4, 1.9, 1.2, 1.1, 1.1, 1.3]):
            points.fuse(keyframe)
    assert points.count([]) == 0
    assert [record.getMessage() for record in caplog.records] == [
        "the map stays empty: no point of its first 4 keyframes has a confidence of map.min_confidence (3), the surest has 1.9; "
        "set it lower, and publish.cloud_min_confidence with it, or take another model"
    ]


def test_nothing_is_said_where_a_piece_has_brought_points(caplog: pytest.LogCaptureFixture) -> None:
    piece, points = MapPoints(MapConfig(voxel_size=0.05)), MapPoints(MapConfig(voxel_size=0.05))
    piece.fuse(_keyframes([5.0])[0])
    points.take_over(piece, Similarity.identity(), {0: 9})
    with caplog.at_level(logging.WARNING):
        for keyframe in _keyframes([1.4] * 6):
            points.fuse(keyframe)
    assert points.count([]) > 0
    assert not caplog.records


@pytest.mark.parametrize(("surest", "least"), [([1.4, 1.4, 3.5, 1.1, 1.1, 1.1], 3.0), ([1.6] * 6, 1.5)])
def test_nothing_is_said_where_the_map_has_points(caplog: pytest.LogCaptureFixture, surest: list[float], least: float) -> None:
    points = MapPoints(MapConfig(voxel_size=0.05, min_confidence=least))
    with caplog.at_level(logging.WARNING):
        for keyframe in _keyframes(surest):
            points.fuse(keyframe)
    assert points.count([]) > 0
    assert not caplog.records
