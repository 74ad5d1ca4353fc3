"""The demo's truth: the motorcycle's calibration must fit its photographs."""

import cv2
import numpy as np
import pytest

from dust3r_ros.demo.inputs import TrueView, disparity_to_depth, motorcycle

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def pair() -> list[TrueView]:
    return motorcycle()


def test_each_photograph_has_a_camera_of_its_own(pair: list[TrueView]) -> None:
    left, right = pair
    assert (left.camera.width, left.camera.height) == (741, 500)
    assert left.image.shape == right.image.shape == (500, 741, 3)
    assert right.camera.cx - left.camera.cx == pytest.approx(31.086, abs=0.001)  # scikit-image's documentation: "principal point dx"
    assert left.camera.fx == pytest.approx(994.978, abs=0.001)
    assert right.stamp > left.stamp


def test_depth_and_baseline_carry_the_left_photograph_onto_the_right(pair: list[TrueView]) -> None:
    left, right = pair
    assert left.depth is not None
    known = left.depth > 0
    assert 0.9 < known.mean() < 1.0
    v, u = np.mgrid[:500, :741]
    x = (u - left.camera.cx) / left.camera.fx * left.depth - right.pose[0, 3]
    y = (v - left.camera.cy) / left.camera.fy * left.depth
    depth = np.where(known, left.depth, 1)
    column = (x / depth * right.camera.fx + right.camera.cx).astype(np.float32)
    row = (y / depth * right.camera.fy + right.camera.cy).astype(np.float32)
    warped = cv2.remap(right.image, column, row, cv2.INTER_LINEAR).astype(float)
    true = np.median(np.abs(warped - left.image)[known])
    unmoved = np.median(np.abs(right.image.astype(float) - left.image)[known])
    assert true < 4
    assert true < 0.25 * unmoved


def test_unknown_disparity_has_no_depth() -> None:
    depth = disparity_to_depth(np.array([np.nan, np.inf, -10.0, 6.0]), focal=100, baseline=0.2, offset=4.0)
    np.testing.assert_allclose(depth, [0, 0, 0, 2.0])
