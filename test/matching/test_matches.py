"""Matches are carried from the working images into the cameras' own pixels, through lens and resize."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dust3r_ros.estimators import Tokens
from dust3r_ros.geometry import Camera, working_camera
from dust3r_ros.matching import Matches, MatchingError, in_source

PLAIN = Camera(640, 480, 400.0, 410.0, 322.0, 236.0)
BENT = Camera(640, 480, 400.0, 410.0, 322.0, 236.0, "plumb_bob", (-0.28, 0.07, 0.001, -0.0005, 0.002))
FISHEYE = Camera(640, 480, 250.0, 255.0, 322.0, 236.0, "equidistant", (-0.01, 0.005, -0.002, 0.0002))


def tokens_of(camera: Camera, size: int = 160) -> Tokens:
    target = working_camera(camera, size)
    return Tokens(camera, target, np.zeros((target.height, target.width, 3), np.uint8))


def corners(tokens: Tokens) -> np.ndarray:
    right, bottom = tokens.camera.width - 1.0, tokens.camera.height - 1.0
    return np.array([[0.0, 0.0], [right, 0.0], [0.0, bottom], [right, bottom], [40.0, 30.0]])


def test_a_resized_view_scales_about_its_corner():
    tokens = tokens_of(PLAIN)
    pixels = corners(tokens)
    found = in_source(Matches(pixels, pixels, np.ones(5)), tokens, tokens)
    np.testing.assert_allclose(found.pixels_1, (pixels + 0.5) * 4 - 0.5, atol=1e-9)


def test_lenses_are_those_of_opencv():
    bent, fisheye = tokens_of(BENT), tokens_of(FISHEYE)
    first, second = corners(bent), corners(fisheye)
    found = in_source(Matches(first, second, np.arange(5.0)), bent, fisheye)
    assert len(found) == 5
    zero = np.zeros(3)
    for pixels, tokens, project, got in (
        (first, bent, cv2.projectPoints, found.pixels_1),
        (second, fisheye, cv2.fisheye.projectPoints, found.pixels_2),
    ):
        rays = tokens.camera.unproject(pixels).reshape(-1, 1, 3)
        distortion = np.array(tokens.source.distortion)
        np.testing.assert_allclose(got, project(rays, zero, zero, tokens.source.matrix, distortion)[0][:, 0], atol=1e-6)


def test_what_the_source_cannot_show_is_left_out():
    tokens = tokens_of(PLAIN)
    inside, outside = [10.0, 10.0], [500.0, 10.0]
    found = in_source(Matches([inside, outside, inside], [inside, inside, outside], [1, 2, 3]), tokens, tokens)
    assert found.confidence.tolist() == [1.0]


def test_some_of_the_matches_and_the_other_way_round():
    matches = Matches([[1, 2], [3, 4]], [[5, 6], [7, 8]], [1, 9])
    assert matches[matches.confidence > 2].pixels_2.tolist() == [[7, 8]]
    assert matches.swapped().pixels_1.tolist() == [[5, 6], [7, 8]]


def test_pixels_that_do_not_pair_up_are_refused():
    with pytest.raises(MatchingError, match=r"\(2, 2\), \(1, 2\), \(2,\)"):
        Matches([[1, 2], [3, 4]], [[5, 6]], [1, 1])
