"""Where geometry has nothing to say, the estimator says so: confidence 1, finite numbers, no invented depth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.estimators.flow import FlowEstimator
from dust3r_ros.geometry import Camera
from dust3r_ros.simulation import room_sequence

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)

pytestmark = pytest.mark.filterwarnings("error")  # a division by zero is a bug, not a remark


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return room_sequence(frames=1, width=320, height=240, seed=1)[0].image


def predict(*images: np.ndarray, camera: Camera = CAMERA) -> list[PairPrediction]:
    estimator = FlowEstimator()
    views = {k: estimator.encode(image, camera) for k, image in enumerate(images)}
    return estimator.estimate(views, [(i, j) for i in views for j in views if i != j])


def assert_nothing_known(predictions: list[PairPrediction]) -> None:
    assert predictions
    for pair in predictions:
        for points in (pair.points_i, pair.points_j):
            assert np.isfinite(points.numpy()).all()
        for confidence in (pair.confidence_i.numpy(), pair.confidence_j.numpy()):
            assert confidence.min() >= 1
            assert np.mean(confidence > 1.5) < 0.02


def turned(image: np.ndarray, degrees: float, axis: tuple[float, float, float]) -> np.ndarray:
    """What the camera sees after a pure rotation."""
    rotation = cv2.Rodrigues(np.radians(degrees) * np.array(axis))[0]
    return cv2.warpPerspective(image, CAMERA.matrix @ rotation @ np.linalg.inv(CAMERA.matrix), (320, 240))


@pytest.mark.parametrize(("degrees", "axis"), [(1, (0, 1, 0)), (5, (1, 0, 0)), (12, (0, 1, 0)), (15, (0, 0, 1))])
def test_a_turned_camera(picture: np.ndarray, degrees: float, axis: tuple[float, float, float]) -> None:
    assert_nothing_known(predict(picture, turned(picture, degrees, axis)))


def test_a_camera_that_keeps_turning(picture: np.ndarray) -> None:
    assert_nothing_known(predict(*[turned(picture, 3 * k, (0, 1, 0)) for k in range(4)]))


def test_a_camera_that_stands_still(picture: np.ndarray) -> None:
    assert_nothing_known(predict(picture, picture, picture))


def test_a_still_camera_with_a_noisy_sensor(picture: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    noisy = [np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    assert_nothing_known(predict(*noisy))


def test_one_colour(picture: np.ndarray) -> None:
    grey = np.full_like(picture, 120)
    assert_nothing_known(predict(grey, grey))
    assert_nothing_known(predict(grey, np.zeros_like(picture)))
    assert_nothing_known(predict(picture, grey))


def test_two_different_places(picture: np.ndarray) -> None:
    smooth = [
        cv2.resize(np.random.default_rng(s).integers(0, 256, (30, 40, 3)).astype(np.uint8), (320, 240), interpolation=2) for s in (1, 2)
    ]
    assert_nothing_known(predict(*smooth))
    assert_nothing_known(predict(picture, smooth[0]))


def test_nothing_but_noise() -> None:
    rng = np.random.default_rng(0)
    assert_nothing_known(predict(*[rng.integers(0, 256, (240, 320, 3)).astype(np.uint8) for _ in range(2)]))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 8), (3, 300), (640, 20)])
def test_images_too_small_for_flow(picture: np.ndarray, width: int, height: int) -> None:
    tiny = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    camera = Camera(width, height, float(max(width, height)), float(max(width, height)), width / 2, height / 2)
    assert_nothing_known(predict(tiny, np.ascontiguousarray(tiny[::-1]), camera=camera))


def test_a_stranger_in_the_window_is_left_out() -> None:
    views = room_sequence(frames=30, width=320, height=240, seed=1)
    camera, stranger = views[0].camera, np.random.default_rng(3).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    found = {(p.i, p.j): p for p in predict(views[0].image, views[7].image, stranger, views[14].image, camera=camera)}
    assert_nothing_known([pair for key, pair in found.items() if 2 in key])
    assert np.mean(found[0, 3].confidence_i.numpy() > 3) > 0.7


def test_a_single_view_has_no_pairs(picture: np.ndarray) -> None:
    assert predict(picture) == []
    assert FlowEstimator().estimate({}, []) == []
