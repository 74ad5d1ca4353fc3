"""A camera that reads its rows one after the other, localised in a map that knows by how much: what is followed is straightened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.geometry import Similarity, procrustes
from dust3r_ros.mapping import Frame, Localiser, Mapper, MapperConfig, MapSnapshot
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.simulation import SimulatedView
from dust3r_ros.simulation.sequence import SimulatedSequence
from dust3r_ros.simulation.walks import circle_pose, room

CONFIG = with_settings(
    MapperConfig(), {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02, "keyframes.min_parallax": 0.02}
)
READOUT, FRAMES, ROUND = 0.04, 20, 90


def turning(sway: float, readout: float) -> list[SimulatedView]:
    """Looking at the walls while it goes round, at 40 degrees a second, or faster and slower."""

    def path(index: float) -> np.ndarray:
        return circle_pose((index + sway * np.sin(0.4 * index)) / ROUND, 1.2, inward=False)

    return SimulatedSequence(ROUND, 160, 120, 0, room, path, readout)[:FRAMES]


@pytest.fixture(scope="module")
def steady() -> list[SimulatedView]:
    return turning(0.0, READOUT)


@pytest.fixture(scope="module")
def place(steady: list[SimulatedView]) -> tuple[MapSnapshot, Similarity, Callable[[list[SimulatedView]], SimulatedEstimator]]:
    """A map made by a camera that reads all rows at once, how it lies in the room, and an estimator that knows more pictures."""
    still = turning(0.0, 0.0)

    def estimator(views: list[SimulatedView]) -> SimulatedEstimator:
        return SimulatedEstimator([*still, *views], size=160)

    mapper = Mapper(CONFIG, estimator(steady))
    for view in still:
        mapper.add(Frame(view.stamp, view.image, view.camera))
    snapshot, truth = mapper.snapshot(), {view.stamp: view.pose[:3, 3] for view in still}
    keyframes = snapshot.keyframes
    return snapshot, procrustes([k.pose[:3, 3] for k in keyframes], [truth[k.stamp] for k in keyframes]), estimator


def error(mapper: Localiser | Mapper, views: list[SimulatedView], to_room: Similarity | None) -> float:
    """Metres, root mean square."""
    for view in views:
        mapper.add(Frame(view.stamp, view.image, view.camera))
    truth, found = {view.stamp: view.pose[:3, 3] for view in views}, mapper.trajectory()
    assert len(found) >= FRAMES - 1
    mine, true = np.stack([pose[:3, 3] for _, pose in found]), np.stack([truth[stamp] for stamp, _ in found])
    return float(np.sqrt(np.mean(np.sum(((to_room or procrustes(mine, true)).apply(mine) - true) ** 2, axis=1))))


def test_how_the_camera_turned_at_the_first_place_is_told_by_the_next_frames(steady: list[SimulatedView], place) -> None:
    snapshot, to_room, estimator = place
    localiser = Localiser(CONFIG, estimator(steady), replace(snapshot, readout=READOUT))
    assert error(localiser, steady, to_room) < 0.01  # 4 cm if it is taken to have stood still then
    mapper = Mapper(with_settings(CONFIG, {"estimator.readout": READOUT}), estimator(steady))
    assert error(mapper, steady, None) < 0.01


def test_turning_faster_and_slower_it_is_placed_better_than_by_bent_pictures(place) -> None:
    snapshot, to_room, estimator = place
    swaying = turning(2.5, READOUT)
    knowing = Localiser(CONFIG, estimator(swaying), replace(snapshot, readout=READOUT))
    ignorant = Localiser(CONFIG, estimator(swaying), snapshot)
    assert error(knowing, swaying, to_room) < 0.85 * error(ignorant, swaying, to_room)
