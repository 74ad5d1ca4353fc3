"""Lens and readout from what a window of views observes, and from pictures."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dust3r_ros.estimators import SelfCalibrating, create_estimator
from dust3r_ros.estimators.flow.bundle_equations import Observations
from dust3r_ros.estimators.flow.lens import Lens, LensObservations, camera_with, homogeneous
from dust3r_ros.estimators.flow.pair_pose import rotation_matrix
from dust3r_ros.estimators.flow.self_calibration import GUESSED, lens_of
from dust3r_ros.geometry import Camera
from dust3r_ros.simulation import room_sequence

BELIEVED = Camera(320, 240, 250.0, 250.0, 159.5, 119.5)
TRUE = Lens(0.12, 0.08, 0.02)  # 282 pixels, a barrel, 20 ms
VIEWS, POINTS = 6, 120


def window() -> tuple[LensObservations, np.ndarray, np.ndarray]:
    """What views of the true lens observe, told as the believed camera has it; poses and inverse depths, each a little off."""
    rng = np.random.default_rng(0)
    steps = np.arange(VIEWS)[:, None]
    turns = rng.uniform(-0.5, 0.5, (VIEWS, 3))
    poses = np.repeat(np.eye(4)[None], VIEWS, 0)
    poses[:, :3, :3] = rotation_matrix(steps * np.array([0.02, 0.05, -0.03]))
    poses[:, :3, 3] = steps * np.array([-0.2, 0.05, 0.06]) + rng.normal(0, 0.03, (VIEWS, 3))
    pairs = np.array([(a, b) for a in range(VIEWS) for b in range(VIEWS) if a != b])
    pixels = rng.uniform((0, 0), (320, 240), (VIEWS, POINTS, 2))
    believed = BELIEVED.unproject(pixels)
    empty = Observations(believed, pairs, np.zeros((len(pairs), POINTS, 2)), np.ones((len(pairs), POINTS)), np.full(len(pairs), 250.0), 0)
    empty = replace(empty, known=np.zeros((VIEWS, POINTS)))
    true = LensObservations(empty, BELIEVED, turns).through(TRUE).rays
    inverse_depth = 1 / rng.uniform(1.5, 5, (VIEWS, POINTS))
    seen = np.empty((len(pairs), POINTS, 2))
    for index, (a, b) in enumerate(pairs):
        relative = poses[b] @ np.linalg.inv(poses[a])
        points = true[a] @ relative[:3, :3].T + inverse_depth[a][:, None] * relative[:3, 3]
        seen[index] = inverted(points[:, :2] / points[:, 2:], turns[b])
    off = np.repeat(np.eye(4)[None], VIEWS, 0)
    off[1:, :3, :3] = rotation_matrix(rng.normal(0, 0.01, (VIEWS - 1, 3)))
    off[1:, :3, 3] = rng.normal(0, 0.02, (VIEWS - 1, 3))
    guess = inverse_depth * rng.uniform(0.8, 1.25, inverse_depth.shape)
    return LensObservations(replace(empty, seen=seen), BELIEVED, turns), off @ poses, guess


def inverted(rays: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """[N, 2] x / z and y / z through the true lens -> where the believed camera takes those pixels to be. By fixed point."""
    found = rays.copy()
    for _ in range(60):
        one = Observations(
            homogeneous(found)[None], np.array([[0, 0]]), found[None], np.ones((1, len(found))), np.ones(1), np.zeros((1, 1))
        )
        found = found + rays - LensObservations(one, BELIEVED, turn[None]).through(TRUE).seen[0]
    return found


def test_the_lens_that_made_the_observations_is_found() -> None:
    pixels, poses, inverse_depth = window()
    lens, information = lens_of(pixels, poses, inverse_depth, Lens(0.0, 0.0), GUESSED)
    assert lens.log_focal == pytest.approx(TRUE.log_focal, abs=0.003)
    assert lens.bend == pytest.approx(TRUE.bend, abs=0.003)
    assert lens.readout == pytest.approx(TRUE.readout, abs=0.0005)
    assert (np.linalg.eigvalsh(information) > 0).all()


def test_a_lens_as_a_camera_bends_the_same_rays() -> None:
    camera = camera_with(BELIEVED, replace(TRUE, readout=0.0))
    grid = np.stack(np.meshgrid(np.linspace(0, 319, 9), np.linspace(0, 239, 7)), -1)
    pixels = (grid - (159.5, 119.5)) / 250.0
    own = pixels / np.exp(TRUE.log_focal)
    expected = own * (1 + TRUE.bend * np.sum(own**2, -1, keepdims=True))
    assert np.abs(camera.unproject(grid)[..., :2] - expected).max() * camera.fx < 0.1
    assert not camera.assumed


def test_pictures_of_a_bent_lens_calibrate_it_from_a_guess() -> None:
    views = room_sequence(57, 320, 240)[::8]
    ideal = views[0].camera
    bent = replace(ideal, model="plumb_bob", distortion=(-0.15, 0.0, 0.0, 0.0))
    there = (bent.rays()[..., :2] * ideal.fx + (ideal.cx, ideal.cy)).astype(np.float32)
    guess = Camera.from_fov(320, 240, 75.0)
    estimator = create_estimator("flow")
    assert isinstance(estimator, SelfCalibrating)
    tokens = [estimator.encode(cv2.remap(view.image, there, None, cv2.INTER_CUBIC), guess) for view in views]
    for last in range(2, len(tokens) + 1):
        window = range(max(0, last - 5), last)
        estimator.estimate({k: tokens[k] for k in window}, [(i, j) for i in window for j in window if i != j and abs(i - j) <= 3])
    found = estimator.calibrate(tokens, [np.zeros(3)] * len(tokens), is_measured=False)
    assert found is not None
    assert found.camera.fx == pytest.approx(ideal.fx, rel=0.06)  # 208 was believed
    assert found.camera.distortion[0] == pytest.approx(-0.15, abs=0.05)
    assert found.focal_sigma < 0.08
    assert found.shift > 5
    assert np.isinf(found.readout_sigma)  # nobody said how it turned
