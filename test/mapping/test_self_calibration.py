"""Walks with a camera that nobody calibrated, and whose rows are read one after the other: the map's beginning tells, and is made anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from dust3r_ros.estimators import create_estimator
from dust3r_ros.mapping import Frame, Localiser, Mapper, MapperConfig, MapUpdate
from dust3r_ros.mapping.config import EstimatorConfig
from dust3r_ros.simulation import SimulatedView, room_sequence

READOUT = 0.03
WRONG_FOV = 80.0  # degrees; it is 62


@pytest.fixture(scope="module")
def walk() -> list[SimulatedView]:
    """Twelve centimetres a frame: five keyframes soon."""
    return room_sequence(60, 320, 240, readout=READOUT)[::2]


def walked(mapper: Mapper, views: list[SimulatedView], told: bool) -> Iterator[MapUpdate]:
    for view in views:
        yield mapper.add(Frame(view.stamp, view.image, view.camera if told else None))


def mapper_with(self_calibration: str = "auto") -> Mapper:
    config = MapperConfig(estimator=EstimatorConfig(self_calibration=self_calibration, assumed_fov=WRONG_FOV))
    return Mapper(replace(config, keyframes=replace(config.keyframes, min_baseline=0.05)), create_estimator("flow"))


def path_error(mapper: Mapper, views: list[SimulatedView]) -> float:
    """Root mean square position error after a similarity, in metres."""
    true = {view.stamp: view.pose[:3, 3] for view in views}
    trajectory = mapper.trajectory()
    found, reference = np.stack([pose[:3, 3] for _, pose in trajectory]), np.stack([true[stamp] for stamp, _ in trajectory])
    a, b = found - found.mean(0), reference - reference.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    scale = np.trace(np.diag(s) @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])) / np.sum(a * a)
    return float(np.sqrt(np.mean(np.sum((b - scale * a @ rotation.T) ** 2, 1))))


@pytest.fixture(scope="module")
def calibrated(walk: list[SimulatedView]) -> tuple[Mapper, list[MapUpdate]]:
    mapper = mapper_with()
    return mapper, list(walked(mapper, walk, told=False))


def test_nobody_told_the_camera_and_the_map_is_right_all_the_same(
    walk: list[SimulatedView], calibrated: tuple[Mapper, list[MapUpdate]]
) -> None:
    (mapper, updates), guessing = calibrated, mapper_with("never")
    guesses = list(walked(guessing, walk, told=False))
    assert not any("made anew" in update.reason for update in guesses)
    assert guessing.calibration.readout == 0.0
    anew = [update for update in updates if "made anew" in update.reason]
    assert anew
    assert all(update.corrected and update.is_keyframe and len(update.keyframes) >= 5 for update in anew)
    newest, true = mapper.keyframes[-1].source, walk[0].camera
    assert newest.fx == pytest.approx(true.fx, rel=0.04)
    assert not newest.assumed
    assert 0.4 * READOUT < mapper.calibration.readout < 1.3 * READOUT  # the camera turns slowly: six degrees a second
    assert path_error(mapper, walk) < 0.25 * path_error(guessing, walk)


def test_what_was_tracked_before_stays_and_the_odometry_does_not_jump(calibrated: tuple[Mapper, list[MapUpdate]]) -> None:
    mapper, updates = calibrated
    indices = [keyframe.index for update in updates if update.is_keyframe for keyframe in update.keyframes[-1:]]
    assert indices == sorted(set(indices))
    placed = [update for update in updates if update.odometry is not None]
    assert len(mapper.trajectory()) >= len(placed)
    steps = [np.linalg.norm(b.odometry[:3, 3] - a.odometry[:3, 3]) for a, b in itertools.pairwise(placed)]
    assert max(steps) < 2.5 * np.median(steps)


def test_a_told_lens_stands_and_only_the_readout_is_found(walk: list[SimulatedView]) -> None:
    mapper = mapper_with()
    list(walked(mapper, walk, told=True))
    assert mapper.keyframes[-1].source == walk[0].camera
    assert mapper.calibration.readout == pytest.approx(READOUT, abs=0.012)


def test_a_map_knows_the_camera_it_was_made_with(walk: list[SimulatedView], calibrated: tuple[Mapper, list[MapUpdate]]) -> None:
    mapper = calibrated[0]
    localiser = Localiser(mapper.config, mapper.estimator, mapper.snapshot())
    there = dict(mapper.trajectory())
    for view in walk[10:14]:
        pose = localiser.add(Frame(view.stamp, view.image)).pose
        assert pose is not None
        assert np.linalg.norm(pose[:3, 3] - there[view.stamp][:3, 3]) < 0.03  # the median depth is 1


def test_what_is_known_of_the_camera_outlives_the_map(walk: list[SimulatedView], calibrated: tuple[Mapper, list[MapUpdate]]) -> None:
    """The last of the tests that look at this Mapper."""
    mapper = calibrated[0]
    known = mapper.keyframes[-1].source
    mapper.reset()
    update = mapper.add(Frame(walk[-1].stamp + 1, walk[0].image))
    assert update.reason == "first frame"
    for view in walk[1:8]:
        mapper.add(Frame(walk[-1].stamp + view.stamp - walk[0].stamp, view.image))
    assert mapper.keyframes
    assert all(keyframe.source == known for keyframe in mapper.keyframes)
