"""A camera: what it refuses, and how its intrinsics follow the picture."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dust3r_ros.geometry import Camera, GeometryError

CAMERA = Camera(640, 480, 400.0, 410.0, 322.0, 236.0)
BARREL = replace(CAMERA, model="plumb_bob", distortion=(-0.28, 0.07, 0.001, -0.0005, 0.002))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fx": float("nan")}, "fx is nan"),
        ({"cy": float("inf")}, "cy is inf"),
        ({"fy": 0.0}, "fy is 0"),
        ({"fx": -400.0}, "fx is -400"),
        ({"width": 0}, "width is 0"),
        ({"height": 480.5}, "height is 480.5"),
        ({"model": "fisheye62"}, "unknown distortion model 'fisheye62'"),
        ({"distortion": (0.1,)}, "1 distortion coefficients for model 'pinhole'"),
        ({"model": "plumb_bob", "distortion": (0.1, 0.2, 0.3)}, "takes 0 or 4 or 5"),
        ({"model": "rational_polynomial", "distortion": (0.0,) * 5}, "takes 0 or 8"),
        ({"model": "equidistant"}, "0 distortion coefficients for model 'equidistant': it takes 4"),
        ({"model": "plumb_bob", "distortion": (0.1, float("nan"), 0.0, 0.0)}, "distortion coefficient is nan"),
    ],
)
def test_values_that_no_camera_has_are_named(change, named):
    with pytest.raises(GeometryError, match=named) as error:
        replace(CAMERA, **change)
    assert "\n" not in str(error.value)


def test_numpy_numbers_and_lists_make_the_same_hashable_camera():
    other = Camera(
        np.int64(640), np.uint32(480), np.float32(400), np.float64(410), 322, 236, "plumb_bob", np.array(BARREL.distortion).tolist()
    )
    assert other == BARREL
    assert hash(other) == hash(BARREL)
    assert type(other.width) is int
    assert type(other.fx) is float


@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(1, 175))
def test_an_assumed_camera_sees_the_field_of_view_it_was_given(width, height, fov):
    camera = Camera.from_fov(width, height, fov)
    left, right = camera.unproject([(-0.5, camera.cy), (width - 0.5, camera.cy)])
    angle = np.degrees(np.arctan(right[0]) - np.arctan(left[0]))
    assert angle == pytest.approx(fov)
    assert camera.assumed
    assert camera.fx == camera.fy


@pytest.mark.parametrize("fov", [0.0, -20.0, 180.0, float("nan")])
def test_a_field_of_view_out_of_range_is_refused(fov):
    with pytest.raises(GeometryError, match="field of view"):
        Camera.from_fov(640, 480, fov)


@given(st.integers(1, 2000), st.integers(1, 2000), st.sampled_from([CAMERA, BARREL]))
def test_resizing_moves_the_pixels_of_a_ray_with_the_picture(width, height, camera):
    ray = np.array([[0.3, -0.2, 1.0], [0.0, 0.0, 1.0]])
    scale = np.array([width / 640, height / 480])
    assert np.allclose(camera.resized(width, height).project(ray), (camera.project(ray) + 0.5) * scale - 0.5)


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_resizing_there_and_back_is_nothing(width, height):
    back = BARREL.resized(width, height).resized(640, 480)
    assert np.allclose([back.fx, back.fy, back.cx, back.cy], [BARREL.fx, BARREL.fy, BARREL.cx, BARREL.cy])
    assert back.distortion == BARREL.distortion


def test_cropping_moves_the_pixels_by_the_corner():
    ray = np.array([0.1, 0.1, 1.0])
    part = BARREL.cropped(100, 50, 300, 200)
    assert (part.width, part.height) == (300, 200)
    assert np.allclose(part.project(ray), BARREL.project(ray) - (100, 50))


@pytest.mark.parametrize("box", [(-1, 0, 10, 10), (0, 0, 641, 10), (600, 0, 41, 10), (0, 470, 10, 11), (0, 0, 0, 10)])
def test_a_crop_outside_the_picture_is_refused(box):
    with pytest.raises(GeometryError):
        CAMERA.cropped(*box)


def test_the_matrix_projects_as_the_camera_does():
    point = np.array([0.4, -0.3, 2.0])
    u, v, w = CAMERA.matrix @ point
    assert np.allclose(CAMERA.project(point), (u / w, v / w))


def test_rays_are_the_grid_unprojected_with_z_1():
    small = BARREL.resized(16, 12)
    rays = small.rays()
    assert rays.shape == (12, 16, 3)
    assert rays.dtype == np.float32
    assert (rays[..., 2] == 1).all()
    u, v = np.meshgrid(np.arange(16), np.arange(12))
    assert np.allclose(small.project(rays), np.stack([u, v], -1), atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_behind_the_camera_and_nan_give_nan_and_no_warning():
    points = [[0.0, 0.0, -1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [np.nan, 0.0, 1.0], [0.0, 0.0, 1.0]]
    for camera in (CAMERA, BARREL, Camera(640, 480, 250.0, 250.0, 320.0, 240.0, "equidistant", (0.0,) * 4)):
        pixels = camera.project(points)
        seen = np.isfinite(pixels).all(1)
        sideways = camera.model == "equidistant"  # which sees at 90 degrees too
        assert seen.tolist() == [False, sideways, False, False, True]
        assert np.isnan(camera.unproject([np.nan, 3.0])).all()


def test_shapes_are_kept_and_wrong_ones_named():
    assert CAMERA.project(np.ones((4, 5, 3))).shape == (4, 5, 2)
    assert CAMERA.unproject(np.ones((4, 5, 2))).shape == (4, 5, 3)
    assert BARREL.project(np.ones((0, 3))).shape == (0, 2)
    assert BARREL.unproject(np.ones((0, 2))).shape == (0, 3)
    with pytest.raises(GeometryError, match="last axis has 3"):
        CAMERA.project(np.ones((4, 2)))


def test_the_outer_pixels_reach_half_a_pixel_beyond_their_centres():
    pixels = [(-0.5, -0.5), (-0.51, 0.0), (639.49, 479.49), (639.5, 10.0), (np.nan, 1.0)]
    assert CAMERA.contains(pixels).tolist() == [True, False, True, False, False]
