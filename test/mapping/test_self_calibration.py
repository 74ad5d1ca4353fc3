"""Walks with a camera that nobody calibrated, and whose rows are read one after the other: the map's beginning tells, and is made anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.lost_walk import CONFIG
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import Calibration, Estimator, PairPrediction, Tokens, create_estimator
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping import Frame, Localiser, Mapper, MapperConfig, MapUpdate, TrackingState
from dust3r_ros.mapping.config import EstimatorConfig, with_settings
from dust3r_ros.models.shipped import shipped_weights
from dust3r_ros.simulation import SimulatedView, circle_sequence, room_sequence

READOUT = 0.03
WRONG_FOV = 80.0  # degrees; it is 62


@pytest.fixture(scope="module")
def walk() -> list[SimulatedView]:
    """Twelve centimetres a frame: five keyframes soon."""
    return room_sequence(60, 320, 240, readout=READOUT)[::2]


def walked(mapper: Mapper, views: list[SimulatedView], told: bool) -> Iterator[MapUpdate]:
    for view in views:
        yield mapper.add(Frame(view.stamp, view.image, view.camera if told else None))


def mapper_with(self_calibration: str = "auto", estimator: Estimator | None = None) -> Mapper:
    config = MapperConfig(estimator=EstimatorConfig(self_calibration=self_calibration, assumed_fov=WRONG_FOV))
    return Mapper(replace(config, keyframes=replace(config.keyframes, min_baseline=0.05)), estimator or create_estimator("flow"))


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


def test_a_calibration_that_fails_costs_no_keyframe(
    walk: list[SimulatedView], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    estimator = create_estimator("flow")
    encode = estimator.encode

    def by_guesses_alone(image: np.ndarray, camera: Camera) -> Tokens:
        if not camera.assumed:
            raise MemoryError("no room for the map made anew")
        return encode(image, camera)

    monkeypatch.setattr(estimator, "encode", by_guesses_alone)
    mapper = mapper_with(estimator=estimator)
    updates = list(walked(mapper, walk[:24], told=False))
    assert "no room for the map made anew" in caplog.text
    assert mapper.calibration.readout == 0.0
    told = {keyframe.index for update in updates for keyframe in update.keyframes}
    assert told == set(mapper.keyframe_map.poses)
    assert len(told) > 5
    assert updates[-1].state is TrackingState.TRACKING


def test_what_was_tracked_before_stays_and_the_odometry_does_not_jump(calibrated: tuple[Mapper, list[MapUpdate]]) -> None:
    mapper, updates = calibrated
    indices = [keyframe.index for update in updates if update.is_keyframe for keyframe in update.keyframes[-1:]]
    assert indices == sorted(set(indices))
    placed = [update for update in updates if update.odometry is not None]
    assert len(mapper.trajectory()) >= len(placed)
    steps = [np.linalg.norm(b.odometry[:3, 3] - a.odometry[:3, 3]) for a, b in itertools.pairwise(placed)]
    assert max(steps) < 2.5 * np.median(steps)


def test_a_network_tells_all_pairs_one_focal_length() -> None:
    """They are left to themselves else, and disagree; the path is the better for it, whatever the focal length."""
    if shipped_weights() is None:
        pytest.skip("this build ships no model")
    views = room_sequence(60, 320, 240)[::2]
    found = {}
    for self_calibration in ("never", "auto"):
        mapper = mapper_with(self_calibration, create_estimator("dust3r_nano", device="cpu", precision="float32"))
        list(walked(mapper, views, told=False))
        found[self_calibration] = path_error(mapper, views), [keyframe.source.assumed for keyframe in mapper.snapshot().keyframes]
    assert found["auto"][0] < 0.8 * found["never"][0]
    assert all(found["never"][1])
    assert not any(found["auto"][1])


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


class Calibrating(SimulatedEstimator):
    """Says with the fifth keyframe which camera it is; knows by which one the newest picture of each later estimate was made."""

    can_calibrate = True

    def __init__(self, views: Sequence[SimulatedView]) -> None:
        super().__init__(views, size=120, noise=0.01)
        self.camera = replace(views[0].camera, model="plumb_bob", distortion=(0.0, 0.0, 0.0, 0.0))
        self.is_known, self.looked_for = False, list[Camera]()

    def calibrate(self, views: Sequence[Tokens], turns: Sequence[np.ndarray], is_measured: bool) -> Calibration:  # noqa: ARG002
        self.is_known = True
        return Calibration(self.camera, focal_sigma=0.01, k1_sigma=0.01, shift=10.0, readout=0.0, readout_sigma=np.inf)

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        if self.is_known:
            self.looked_for.append(views[max(views)].source)
        return super().estimate(views, pairs)


def test_a_piece_is_looked_for_by_the_calibrated_camera_at_once() -> None:
    views = list(circle_sequence(60, 120, 90))
    estimator = Calibrating(views)
    mapper = Mapper(with_settings(CONFIG, {"estimator.assumed_fov": WRONG_FOV, "keyframes.min_parallax": 0.02}), estimator)
    for view in views[17:26]:  # a piece that waits, of where the fifth keyframe will be
        mapper._apart.add(Frame(view.stamp, view.image))
    mapper._apart.rest()
    assert len(mapper.pieces) == 1
    updates = (mapper.add(Frame(view.stamp, view.image)) for view in views)
    anew = next(update for update in updates if "made anew" in update.reason)
    assert "relocalise" in anew.seconds
    assert len(estimator.looked_for) > 4  # four keyframes made anew, and then the piece
    assert set(estimator.looked_for) == {estimator.camera}
