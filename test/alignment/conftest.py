"""Pairs of a module's own `views`, each with its neighbours."""

from __future__ import annotations

import pytest
from support.pair_simulator import PairSimulator

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.mapping.scene_graph import SceneGraph


@pytest.fixture(scope="module")
def predictions(views: PairSimulator) -> list[PairPrediction]:
    return views.pairs(SceneGraph.parse("swin-3").pairs(range(len(views.poses)), True))


@pytest.fixture(scope="module")
def centres(views: PairSimulator) -> dict[int, tuple[float, float]]:
    return dict.fromkeys(range(len(views.poses)), (views.camera.cx, views.camera.cy))
