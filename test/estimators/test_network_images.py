"""The network's picture against Pillow's, and its camera against a scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dust3r_ros.estimators import EstimatorError
from dust3r_ros.estimators.two_view.images import framing, normalised, resample
from dust3r_ros.geometry import Camera

CPU = torch.device("cpu")


def picture(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width * height)
    return np.asarray(Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)).resize((width, height)))


@pytest.mark.parametrize(
    ("width", "height", "side", "square", "resized", "size"),
    [
        (640, 480, 512, False, (512, 384), (512, 384)),
        (480, 640, 512, False, (384, 512), (384, 512)),
        (1920, 1080, 512, False, (512, 288), (512, 288)),
        (300, 200, 512, False, (512, 341), (512, 336)),
        (500, 500, 512, False, (512, 512), (512, 384)),  # an exact square is cut to 4:3
        (641, 479, 224, True, (300, 224), (224, 224)),
        (200, 640, 224, True, (224, 717), (224, 224)),
        (1280, 720, 448, False, (448, 252), (448, 240)),
    ],
)
def test_resized_and_cut_as_pillow_does(
    width: int, height: int, side: int, square: bool, resized: tuple[int, int], size: tuple[int, int]
) -> None:
    frame = framing(width, height, side, 16, square)
    assert (frame.resized, frame.size) == (resized, size)
    assert (frame.left, frame.top) == (resized[0] // 2 - size[0] // 2, resized[1] // 2 - size[1] // 2)
    image = picture(width, height)
    shrinks = max(resized) < max(width, height)
    whole = Image.fromarray(image).resize(resized, Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC)
    theirs = np.asarray(whole.crop((frame.left, frame.top, frame.left + size[0], frame.top + size[1]))).astype(int)
    ours = resample(image, frame, CPU).numpy().astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 1e-3


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    image = picture(64, 48)
    assert np.array_equal(resample(image, framing(64, 48, 64, 16, False), CPU).numpy(), image)
    image.flags.writeable = False  # as a message's buffer is
    assert np.array_equal(resample(image, framing(64, 48, 64, 16, False), CPU).numpy(), image)


@pytest.mark.parametrize(("width", "height", "square"), [(640, 480, False), (641, 477, False), (480, 640, True), (1920, 1080, False)])
def test_the_camera_follows_its_picture(width: int, height: int, square: bool) -> None:
    """A bright dot lands where the camera of the cut picture projects its ray to."""
    camera = Camera(width, height, 0.9 * width, 0.95 * width, width * 0.52, height * 0.47)
    frame = framing(width, height, 224, 16, square)
    small = frame.camera(camera)
    assert (small.width, small.height) == frame.size
    for u, v in ((width * 0.5, height * 0.5), (width * 0.42, height * 0.6)):
        image = np.zeros((height, width, 3), np.uint8)
        rows, columns = np.mgrid[:height, :width]
        image[...] = (255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * (0.01 * width) ** 2)))[..., None]
        seen = resample(image, frame, CPU).numpy()[..., 0].astype(float)
        centre = (seen * np.arange(frame.size[0])).sum() / seen.sum(), (seen * np.arange(frame.size[1])[:, None]).sum() / seen.sum()
        ray = camera.unproject(np.array([u, v]))
        np.testing.assert_allclose(small.project(ray), centre, atol=0.15)


def test_a_picture_without_a_whole_patch_is_refused() -> None:
    with pytest.raises(EstimatorError, match=r"1000x20 .* less than one patch of 16"):
        framing(1000, 20, 512, 16, False)


def test_values_are_from_minus_one_to_one() -> None:
    values = normalised(torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8))
    torch.testing.assert_close(values.flatten(), torch.tensor([-1.0, 128 / 255 * 2 - 1, 1.0]))
    assert values.shape == (1, 3, 1, 1)
