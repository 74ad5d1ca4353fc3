"""One focal length for a camera that nobody calibrated, by what a network says of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.networks import DPT, SMALL, small_network

from dust3r_ros.estimators import PairPrediction, SelfCalibrating, Tokens
from dust3r_ros.estimators.two_view import NetworkEstimator
from dust3r_ros.estimators.two_view.hardware import choose_hardware
from dust3r_ros.estimators.two_view.self_calibration import SPAN, calibrate
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import EstimatorConfig
from dust3r_ros.mapping.keyframes.self_calibration import SURE, SelfCalibration

SOURCE = Camera(320, 240, 277.0, 277.0, 159.5, 119.5, assumed=True)  # 60 degrees
WORKING = Camera(160, 112, 138.5, 138.5, 79.5, 55.5, assumed=True)
TRUE = 110.0  # pixels of the working image
MATCHED = replace(SMALL, patch_size=8, head="camera", match_width=8)


class PairsOfACamera:
    """A simulated network: what it sees has the camera's true focal length, but for an error of each pair."""

    def __init__(self, spread: float, confidence: float = 4.0) -> None:
        self.rng, self.spread, self.confidence = np.random.default_rng(0), spread, confidence
        self.asked: list[tuple[int, int]] = []

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        self.asked += pairs
        v, u = np.mgrid[: WORKING.height, : WORKING.width].astype(float)
        found = []
        for i, j in pairs:
            focal = TRUE * np.exp(self.spread * self.rng.standard_normal())
            depth = self.rng.uniform(1, 3, u.shape)
            rays = np.stack([(u - WORKING.cx) / focal, (v - WORKING.cy) / focal, np.ones_like(u)], -1)
            points = torch.from_numpy((rays * depth[..., None]).astype(np.float32))
            sure = torch.full(u.shape, self.confidence)
            found.append(PairPrediction(i, j, points, points, sure, sure))
        assert set(views) >= {key for pair in pairs for key in pair}
        return found


def views(count: int, source: Camera = SOURCE) -> list[Tokens]:
    return [Tokens(source, WORKING, np.zeros((WORKING.height, WORKING.width, 3), np.uint8)) for _ in range(count)]


def test_pairs_that_agree_give_the_cameras_focal_length() -> None:
    network = PairsOfACamera(0.05)
    found = calibrate(views(6), network.estimate)
    assert found is not None
    assert found.camera.fx == pytest.approx(2 * TRUE, rel=0.03)
    assert found.camera.fx == found.camera.fy
    assert not found.camera.assumed
    assert (found.camera.cx, found.camera.width, found.camera.is_pinhole) == (SOURCE.cx, SOURCE.width, True)
    assert found.focal_sigma < SURE
    corner = np.hypot(SOURCE.width - 1, SOURCE.height - 1) / 4  # from the middle, in pixels of the working image
    assert found.shift == pytest.approx(corner * abs(1 - SOURCE.fx / found.camera.fx), rel=1e-6)
    assert found.readout == 0
    assert all(abs(i - j) <= SPAN for i, j in network.asked)
    assert set(network.asked) == {(j, i) for i, j in network.asked}


def test_pairs_that_contradict_each_other_are_not_believed() -> None:
    found = calibrate(views(5), PairsOfACamera(0.35).estimate)
    assert found is not None
    assert found.focal_sigma > SURE


def test_what_says_too_little_gives_nothing() -> None:
    assert calibrate(views(2), PairsOfACamera(0.0).estimate) is None
    assert calibrate(views(5), PairsOfACamera(0.0, confidence=1.0).estimate) is None
    assert calibrate([*views(4), *views(1, replace(SOURCE, fx=300.0, fy=300.0))], PairsOfACamera(0.0).estimate) is None
    bent = replace(SOURCE, model="plumb_bob", distortion=(0.1, 0.0, 0.0, 0.0))
    assert calibrate(views(5, bent), PairsOfACamera(0.0).estimate) is None


def test_a_network_is_asked_as_if_nobody_had_told_it() -> None:
    """Else a focal length that was believed once would confirm itself."""
    own = NetworkEstimator(small_network(MATCHED), "small", hardware=choose_hardware("cpu", "float32"))
    assert isinstance(own, SelfCalibrating)
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (24, 32, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1) for _ in range(4)]
    camera = Camera(64, 48, 55.0, 55.0, 31.5, 23.5)
    told, untold = ([own.encode(picture, c) for picture in pictures] for c in (camera, replace(camera, assumed=True)))
    nowhere = [np.zeros(3)] * 4
    one, other = own.calibrate(told, nowhere, False), own.calibrate(untold, nowhere, False)
    assert one is not None
    assert other is not None
    assert one.camera.fx == pytest.approx(other.camera.fx, rel=1e-5)
    assert one.camera.fx != pytest.approx(55.0, rel=1e-3)
    assert own.calibrate(told, nowhere, True) is None
    assert own.can_calibrate
    deaf = NetworkEstimator(small_network(DPT), "small", hardware=choose_hardware("cpu", "float32"))
    assert not deaf.can_calibrate
    assert deaf.calibrate(told, nowhere, False) is None
    assert not SelfCalibration(deaf, EstimatorConfig()).is_open  # nothing is kept for it
    assert SelfCalibration(own, EstimatorConfig()).is_open
