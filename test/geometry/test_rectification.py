"""Pictures undistorted and resized, and maps brought back into the camera's own pixels."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dust3r_ros.geometry import Camera, GeometryError, Rectification, working_camera

PINHOLE = Camera(640, 480, 400.0, 410.0, 322.0, 236.0)
BARREL = replace(PINHOLE, model="plumb_bob", distortion=(-0.28, 0.07, 0.001, -0.0005, 0.002))
PINCUSHION = replace(PINHOLE, model="plumb_bob", distortion=(0.2, 0.05, 0.0, 0.0))
FISHEYE = replace(PINHOLE, fx=250.0, fy=255.0, model="equidistant", distortion=(-0.01, 0.005, -0.002, 0.0002))
WIDE_FISHEYE = Camera(800, 800, 250.0, 250.0, 399.5, 399.5, "equidistant", (0.0,) * 4)  # 184 degrees across
LENSES = [PINHOLE, BARREL, PINCUSHION, FISHEYE, WIDE_FISHEYE]
every_lens = pytest.mark.parametrize("source", LENSES, ids=["pinhole", "barrel", "pincushion", "fisheye", "wide fisheye"])


def painted(camera: Camera) -> np.ndarray:
    """What a camera sees of a smooth pattern at infinity, exactly: a function of the ray alone."""
    rays = camera.rays().astype(np.float64)
    x, y = np.nan_to_num(rays[..., 0]), np.nan_to_num(rays[..., 1])
    return (128 + 60 * np.sin(5 * x + 1) + 60 * np.cos(4 * y + x)).astype(np.float32)


@every_lens
def test_the_working_camera_has_the_size_asked_for_and_sees_only_what_the_source_sees(source):
    target = working_camera(source, 320)
    assert target.is_pinhole
    assert max(target.width, target.height) == 320
    assert target.width / target.height == pytest.approx(source.width / source.height, rel=0.01)
    assert source.contains(source.project(target.unproject(target.pixel_grid()))).all()
    assert 2 * np.degrees(np.arctan(np.abs(target.rays()[..., 0]).max())) <= 120.01


@every_lens
def test_the_working_camera_wastes_little_of_the_picture(source):
    target = working_camera(source, 320)
    on_it = target.contains(target.project(source.unproject(source.pixel_grid())))
    assert on_it.mean() > (0.3 if source is WIDE_FISHEYE else 0.65)


def test_without_distortion_the_working_camera_is_the_resized_one():
    assert working_camera(PINHOLE, 320) == PINHOLE.resized(320, 240)
    assert working_camera(Camera.from_fov(480, 640, 60), 320) == Camera.from_fov(480, 640, 60).resized(240, 320)


def test_an_assumed_camera_stays_assumed():
    assert working_camera(Camera.from_fov(640, 480, 60.0), 320).assumed


@every_lens
def test_the_picture_is_what_the_target_would_have_seen(source):
    target = working_camera(source, 320)
    seen = Rectification(source, target).image(painted(source))
    inner = (slice(2, -2), slice(2, -2))
    # Averaging over a target pixel and sampling at its centre differ by the pattern's curvature only; the pattern spans 240 levels.
    difference = np.abs(seen - painted(target))[inner]
    assert difference.max() < 1.0


def test_a_distorted_picture_agrees_with_opencv_at_the_same_size():
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8), (0, 0), 3)
    target = PINHOLE
    ours = Rectification(BARREL, target).image(image)
    theirs = cv2.undistort(image, BARREL.matrix, np.array(BARREL.distortion), None, target.matrix)
    assert np.abs(ours.astype(int) - theirs)[5:-5, 5:-5].max() <= 2


def test_shrinking_averages_and_does_not_alias():
    # Stripes of one pixel: any sampling that skips pixels sees black or white or a slow beat; a camera with fewer pixels sees grey.
    stripes = np.zeros((480, 640), np.uint8)
    stripes[:, ::2] = 255
    for source in LENSES[:4]:
        seen = Rectification(source, working_camera(source, 160)).image(stripes).astype(int)
        assert np.abs(seen - 128).max() < 40, source.model
        naive = stripes[::4, ::4].astype(int)
        assert np.abs(naive - 128).max() > 100


def test_the_same_camera_gives_the_same_picture_and_not_the_same_memory():
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    same = Rectification(PINHOLE, PINHOLE).image(image)
    assert (same == image).all()
    assert not np.shares_memory(same, image)


@every_lens
def test_depth_comes_back_to_the_pixels_it_belongs_to(source):
    # A slanted plane's depth along z is a function of the ray: both cameras see the same number for the same ray.
    normal, target = np.array([0.2, -0.1, 1.0]), working_camera(source, 320)
    depth = (3.0 / (target.rays() @ normal)).astype(np.float32)
    truth = 3.0 / (source.unproject(source.pixel_grid()) @ normal)
    found = Rectification(source, target).to_source(depth)
    seen = target.contains(target.project(source.unproject(source.pixel_grid())))
    assert found.shape == (source.height, source.width)
    assert (found[~seen] == 0).all()
    smooth = Rectification(source, target).to_source(depth, interpolation="bilinear")
    well_inside = cv2.erode(seen.astype(np.uint8), np.ones((9, 9)), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    assert np.abs(smooth / truth - 1)[well_inside].max() < 2e-3
    assert np.abs(found / truth - 1)[seen & (truth > 0)].max() < 0.02


def test_nearest_invents_no_values():
    depth = np.random.default_rng(0).choice(np.array([0.0, 1.0, 5.0], np.float32), (240, 320))
    found = Rectification(BARREL, working_camera(BARREL, 320)).to_source(depth)
    assert set(np.unique(found)) <= {0.0, 1.0, 5.0}


def test_fill_says_what_unseen_pixels_hold():
    found = Rectification(BARREL, working_camera(BARREL, 320)).to_source(np.full((240, 320), 7.0, np.float32), fill=1.0)
    assert set(np.unique(found)) == {1.0, 7.0}


def test_a_narrower_target_leaves_the_rim_unseen():
    target = PINHOLE.cropped(160, 120, 320, 240)
    found = Rectification(PINHOLE, target).to_source(np.ones((240, 320), np.float32))
    expected = np.zeros((480, 640), np.float32)
    expected[120:360, 160:480] = 1
    assert (found == expected).all()


@pytest.mark.filterwarnings("error")
def test_pixels_past_90_degrees_are_unseen_and_not_nonsense():
    target = working_camera(WIDE_FISHEYE, 320)
    found = Rectification(WIDE_FISHEYE, target).to_source(np.ones((target.height, target.width), np.float32))
    assert found[400, 400] == 1
    assert found[400, 0] == 0
    assert found[0, 0] == 0


def test_wrong_sizes_and_targets_are_named():
    rectification = Rectification(BARREL, working_camera(BARREL, 320))
    with pytest.raises(GeometryError, match=r"image of shape \(240, 320, 3\).*640x480"):
        rectification.image(np.zeros((240, 320, 3), np.uint8))
    with pytest.raises(GeometryError, match="map of shape"):
        rectification.to_source(np.zeros((480, 640), np.float32))
    with pytest.raises(GeometryError, match="pinhole"):
        Rectification(PINHOLE, BARREL)
    with pytest.raises(GeometryError, match="working image of 0"):
        working_camera(PINHOLE, 0)
