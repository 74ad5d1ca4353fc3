"""Dense flow between two views of which the true motion of every pixel is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dust3r_ros.estimators.flow.correspondence import flow_between
from dust3r_ros.estimators.flow.optical import UNKNOWN, coarse_alignment, match
from dust3r_ros.estimators.flow.triangulation import triangulate
from dust3r_ros.estimators.flow.view import View, view_of
from dust3r_ros.geometry import Camera

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)


def texture(seed: int, width: int = 320, height: int = 240) -> np.ndarray:
    """Noise of several sizes, something to follow at every scale."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell in (3, 8, 24):
        small = rng.normal(0, 1, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 40 * total, 0, 255).astype(np.uint8)


def shifted(x: float, y: float) -> tuple[View, View]:
    """Two views cut from one larger texture; the second shows each point (x, y) further."""
    large = texture(0, 640, 480)
    cuts = [np.float32([[1, 0, -160 + dx], [0, 1, -120 + dy]]) for dx, dy in ((0, 0), (x, y))]
    return tuple(view_of(cv2.warpAffine(large, cut, (320, 240)), CAMERA) for cut in cuts)


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1.5, -2.25), (9.0, 4.0), (70.0, -30.0)])
def test_a_shift_is_found_to_a_fraction_of_a_pixel(x: float, y: float) -> None:
    first, second = shifted(x, y)
    forth, back = match(first, second)
    grid_y, grid_x = np.mgrid[:240, :320]
    seen = forth.error < 1
    assert np.count_nonzero(seen) > 0.6 * seen.size * (1 - abs(x) / 320) * (1 - abs(y) / 240)
    assert np.median(np.hypot(forth.x - grid_x - x, forth.y - grid_y - y)[seen]) < 0.15
    assert np.median(np.hypot(back.x - grid_x + x, back.y - grid_y + y)[back.error < 1]) < 0.15


def test_pixels_that_leave_the_other_image_are_unknown() -> None:
    first, second = shifted(70, 0)
    assert (match(first, second)[0].error[:, 260:] == UNKNOWN).all()


def test_small_motion_needs_no_alignment_and_large_motion_gets_one() -> None:
    assert np.array_equal(coarse_alignment(*shifted(3, 0)), np.eye(3))
    assert coarse_alignment(*shifted(70, -30))[:2, 2] == pytest.approx([70, -30], abs=2)


def test_the_same_pictures_are_matched_once_and_other_pictures_anew() -> None:
    first, second = shifted(5, 0)
    flow = flow_between(first, second)
    again = shifted(5, 0)[1]
    assert flow_between(first, again) is flow
    other = shifted(6, 0)[1]
    assert flow_between(first, other) is not flow


def test_pictures_of_different_places_have_no_flow() -> None:
    smooth = [
        cv2.resize(np.random.default_rng(s).integers(0, 256, (30, 40, 3)).astype(np.uint8), (320, 240), interpolation=2) for s in (1, 2)
    ]
    first, second = (view_of(image, CAMERA) for image in smooth)
    assert match(first, second)[0].overlap > 0.15  # chance agreement, which the test after it sees through
    assert flow_between(first, second).overlap == 0


def test_a_sideways_shift_triangulates_to_the_plane_it_comes_from() -> None:
    first, second = shifted(-6.5, 0)
    found = triangulate(first, second, flow_between(first, second), np.eye(3), np.array([-0.1, 0, 0]))
    known = found.precision > 0
    assert np.count_nonzero(known) > 0.8 * known.size
    assert np.median(found.inverse_depth[known]) == pytest.approx(6.5 / 26, rel=0.01)
    sigma = 1 / np.sqrt(found.precision[known])
    error = np.abs(found.inverse_depth[known] - 6.5 / 26)
    assert np.mean(error < 3 * sigma) > 0.95


def test_points_behind_the_camera_are_refused() -> None:
    first, second = shifted(-6.5, 0)
    found = triangulate(first, second, flow_between(first, second), np.eye(3), np.array([0.1, 0, 0]))
    assert not found.precision.any()
