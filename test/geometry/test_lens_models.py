"""Every lens model against OpenCV, there and back, and past the edge of what it can say."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dust3r_ros.geometry import Camera

BASE = Camera(640, 480, 400.0, 410.0, 322.0, 236.0)
LENSES = {
    "plumb_bob 4": replace(BASE, model="plumb_bob", distortion=(-0.28, 0.07, 0.001, -0.0005)),
    "plumb_bob 5": replace(BASE, model="plumb_bob", distortion=(-0.28, 0.07, 0.001, -0.0005, 0.002)),
    "plumb_bob pincushion": replace(BASE, model="plumb_bob", distortion=(0.2, 0.1, -0.002, 0.001, 0.05)),
    "rational 8": replace(BASE, model="rational_polynomial", distortion=(8.0, 3.0, 1e-4, -1e-4, 0.1, 8.3, 5.0, 0.5)),
    "equidistant": replace(BASE, fx=250.0, fy=255.0, model="equidistant", distortion=(-0.01, 0.005, -0.002, 0.0002)),
    "equidistant, no coefficients": replace(BASE, fx=250.0, fy=255.0, model="equidistant", distortion=(0.0,) * 4),
}
every_lens = pytest.mark.parametrize("camera", LENSES.values(), ids=LENSES.keys())
small = st.floats(-1.0, 1.0)


def opencv_pixels(points: np.ndarray, camera: Camera) -> np.ndarray:
    still, coefficients = np.zeros(3), np.array(camera.distortion)
    project = cv2.fisheye.projectPoints if camera.model == "equidistant" else cv2.projectPoints
    points = np.asarray(points, np.float64)[:, None]
    if camera.model == "equidistant":
        return project(points, still, still, camera.matrix, coefficients)[0].reshape(-1, 2)
    return project(points, still, still, camera.matrix, coefficients)[0].reshape(-1, 2)


@every_lens
def test_projects_as_opencv_does(camera):
    points = np.random.default_rng(0).uniform([-1.5, -1.0, 2.0], [1.5, 1.0, 4.0], (500, 3))
    assert np.allclose(camera.project(points), opencv_pixels(points, camera), atol=1e-9)


@every_lens
def test_unprojects_as_opencv_does_near_the_middle(camera):
    # Near the middle OpenCV's iteration has converged; further out it is this inverse that the round trip vouches for.
    pixels = np.random.default_rng(1).uniform((250, 170), (390, 300), (200, 2))
    undistort = cv2.fisheye.undistortPoints if camera.model == "equidistant" else cv2.undistortPoints
    expected = undistort(pixels[:, None], camera.matrix, np.array(camera.distortion)).reshape(-1, 2)
    assert np.allclose(camera.unproject(pixels)[:, :2], expected, atol=1e-4)


@every_lens
def test_every_pixel_comes_back_from_its_ray(camera):
    u, v = np.meshgrid(np.arange(0.0, 640, 7), np.arange(0.0, 480, 7))
    pixels = np.stack([u, v], -1)
    rays = camera.unproject(pixels)
    known = np.isfinite(rays).all(-1)
    assert known.mean() > 0.97
    assert np.allclose(camera.project(rays)[known], pixels[known], atol=1e-6)


@settings(max_examples=200)
@given(st.floats(-0.4, 0.4), st.floats(-0.2, 0.2), st.floats(-0.005, 0.005), st.floats(-0.005, 0.005), st.floats(-0.05, 0.05), small, small)
def test_any_plumb_bob_lens_comes_back_or_says_nan(k1, k2, p1, p2, k3, x, y):
    camera = replace(BASE, model="plumb_bob", distortion=(k1, k2, p1, p2, k3))
    pixel = camera.project([x, y, 1.0])
    if np.isfinite(pixel).all():
        ray = camera.unproject(pixel)
        # Close to the fold two rays may share a pixel: then either is an answer, if it lands there.
        assert np.allclose(camera.project(ray), pixel, atol=1e-5) if np.isfinite(ray).all() else np.hypot(x, y) > 0.6


@given(st.floats(-0.05, 0.05), st.floats(-0.02, 0.02), st.floats(0.0, 1.5), st.floats(-np.pi, np.pi))
def test_any_fisheye_lens_comes_back(k1, k2, theta, around):
    camera = replace(BASE, model="equidistant", distortion=(k1, k2, 0.0, 0.0))
    ray = np.array([np.cos(around) * np.tan(theta), np.sin(around) * np.tan(theta), 1.0])
    pixel = camera.project(ray)
    assert np.isfinite(pixel).all()
    assert np.allclose(camera.unproject(pixel), ray, rtol=1e-5, atol=1e-6)


@every_lens
def test_distance_does_not_matter(camera):
    ray = np.array([0.3, -0.25, 1.0])
    assert np.allclose(camera.project(ray * 7.5), camera.project(ray))


def test_a_fisheye_without_coefficients_is_the_angle_times_the_focal_length():
    camera = Camera(640, 480, 250.0, 250.0, 320.0, 240.0, "equidistant", (0.0,) * 4)
    for degrees in (0.0, 30.0, 89.0, 90.0, 120.0):
        angle = np.radians(degrees)
        assert np.allclose(camera.project([np.sin(angle), 0.0, np.cos(angle)]), (320.0 + 250.0 * angle, 240.0))


def test_a_fisheye_pixel_past_90_degrees_has_no_ray_at_z_1():
    camera = Camera(1000, 1000, 250.0, 250.0, 499.5, 499.5, "equidistant", (0.0,) * 4)
    past = 499.5 + 250.0 * np.radians([80.0, 89.0, 91.0, 100.0, 179.0])
    rays = camera.unproject(np.stack([past, np.full(5, 499.5)], -1))
    assert np.isfinite(rays).all(1).tolist() == [True, True, False, False, False]
    assert rays[0] == pytest.approx([np.tan(np.radians(80.0)), 0.0, 1.0])


def test_past_the_fold_nothing_lands_in_the_picture_again():
    # r (1 - 0.3 r^2) turns back at r = 1.054; further out OpenCV puts points back into the picture.
    camera = replace(BASE, model="plumb_bob", distortion=(-0.3, 0.0, 0.0, 0.0))
    wide = np.array([[r, 0.0, 1.0] for r in (1.0, 1.1, 1.5, 1.8)])
    assert camera.contains(opencv_pixels(wide, camera))[3]
    assert np.isfinite(camera.project(wide)).all(1).tolist() == [True, False, False, False]


def test_a_pixel_that_no_ray_reaches_has_none():
    # The largest distorted radius of this lens is 0.703.
    camera = replace(BASE, model="plumb_bob", distortion=(-0.3, 0.0, 0.0, 0.0))
    rays = camera.unproject([(322.0 + 400.0 * 0.69, 236.0), (322.0 + 400.0 * 0.72, 236.0)])
    assert np.isfinite(rays).all(1).tolist() == [True, False]


def test_zero_coefficients_are_a_pinhole_but_not_for_a_fisheye():
    assert replace(BASE, model="plumb_bob", distortion=(0.0,) * 5).is_pinhole
    assert not LENSES["equidistant, no coefficients"].is_pinhole
