"""The sky mask finds generated skies, and nothing indoors."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dust3r_ros.alignment import AlignmentError, sky_mask
from dust3r_ros.simulation import room_sequence

HEIGHT, WIDTH = 240, 320


def smooth_noise(rng: np.random.Generator, low: float, high: float) -> NDArray[np.float32]:
    coarse = rng.uniform(low, high, (6, 8)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None])


def blue(_: np.random.Generator) -> NDArray:
    down = np.linspace(0, 1, HEIGHT)[:, None, None]
    return np.broadcast_to((1 - down) * (70, 120, 200) + down * (170, 205, 235), (HEIGHT, WIDTH, 3))


def clouds(rng: np.random.Generator) -> NDArray:
    cover = np.clip((smooth_noise(rng, 0, 1) - 0.45) * 4, 0, 1)
    return (1 - cover) * blue(rng) + cover * (238, 240, 243)


def overcast(rng: np.random.Generator) -> NDArray:
    return smooth_noise(rng, -12, 12) + np.array([205, 210, 214])


def picture(sky: NDArray, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The sky above textured blocks of uneven height, with a sensor's noise; and where it is."""
    above = np.arange(HEIGHT)[:, None] < np.repeat(rng.integers(96, 168, WIDTH // 20), 20)
    blocks = rng.uniform(30, 130, (HEIGHT // 4, WIDTH // 4, 3)).astype(np.float32)
    ground = cv2.resize(blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    noisy = np.where(above[..., None], sky, ground) + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8), above


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sky", [blue, clouds, overcast])
def test_the_sky_above_a_skyline_is_found(sky: Callable[[np.random.Generator], NDArray], seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, truth = picture(sky(rng), rng)
    found = sky_mask(image)
    assert found[truth].mean() > 0.95
    assert found[~truth].mean() < 0.01


def test_the_mask_has_the_pictures_size_and_the_same_sky_at_any_size() -> None:
    rng = np.random.default_rng(0)
    image, truth = picture(blue(rng), rng)
    for width, height in ((1024, 768), (64, 48)):
        found = sky_mask(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        assert found.shape == (height, width)
        assert (found == (cv2.resize(truth.astype(np.uint8), (width, height)) > 0)).mean() > 0.95


def test_a_white_ceiling_is_no_sky() -> None:
    """White walls below it, dark furniture before them: the walls are as bright as the ceiling."""
    rng = np.random.default_rng(0)
    image, _ = picture(overcast(rng), rng)
    assert sky_mask(image)[:80].all()
    image[:180] = (205, 206, 204)
    image[:80] = (215, 216, 214)
    image[120:190, 60:200] = (90, 60, 30)
    image = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    assert not sky_mask(image).any()


def test_white_without_anything_under_it_is_no_sky() -> None:
    assert not sky_mask(np.full((HEIGHT, WIDTH, 3), 230, np.uint8)).any()


def test_blue_that_does_not_reach_the_top_is_no_sky() -> None:
    rng = np.random.default_rng(0)
    image, _ = picture(blue(rng), rng)
    assert not sky_mask(image[::-1].copy()).any()


def test_the_simulated_room_has_no_sky() -> None:
    for index in (0, 40, 80):
        assert not sky_mask(room_sequence(100, 160, 120)[index].image).any()


@pytest.mark.parametrize(
    "name", ["astronaut", "brick", "chelsea", "coffee", "coins", "colorwheel", "grass", "hubble_deep_field", "moon", "page", "text"]
)
def test_photographs_without_sky_have_none(name: str) -> None:
    image = getattr(pytest.importorskip("skimage.data"), name)()
    assert not sky_mask(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)).any()


def test_the_garage_has_no_sky() -> None:
    assert not sky_mask(pytest.importorskip("skimage.data").stereo_motorcycle()[0]).any()


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(wrong: NDArray) -> None:
    with pytest.raises(AlignmentError, match="sky mask"):
        sky_mask(wrong)
