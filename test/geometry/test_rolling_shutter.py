"""Pictures whose rows are read one after the other, made as if read at once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import Camera, row_time, straightened, straightened_image, turn_between

CAMERA = Camera(160, 120, 140.0, 142.0, 80.5, 58.0)
BENT = Camera(160, 120, 140.0, 142.0, 80.5, 58.0, "plumb_bob", (-0.2, 0.03, 0.0, 0.0))
TURN = np.array([0.6, -1.1, 0.8])  # radians a second
READOUT = 0.03


def leaning(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Where resting points [N, 3] appear in a picture read row by row while the camera turns: each at the time of its own row."""
    rows = np.full(len(points), (camera.height - 1) / 2)
    for _ in range(20):
        turns = Rotation.from_rotvec((READOUT * row_time(rows, camera.height))[:, None] * TURN)
        pixels = camera.project(turns.apply(points))
        rows = pixels[:, 1]
    return pixels


@pytest.mark.parametrize("camera", [CAMERA, BENT])
def test_pixels_go_to_where_they_would_be_had_all_rows_been_read_at_once(camera: Camera) -> None:
    points = np.random.default_rng(0).uniform((-1, -0.7, 2), (1, 0.7, 3), (200, 3))
    pixels = leaning(points, camera)
    assert np.abs(pixels - camera.project(points)).max() > 1.0
    assert np.allclose(straightened(pixels, camera, TURN, READOUT), camera.project(points), atol=1e-3)


def test_a_picture_is_straightened_as_its_pixels_are() -> None:
    columns, rows = np.meshgrid(np.arange(160), np.arange(120))
    smooth = (120 + 60 * np.sin(columns / 9) + 60 * np.sin(rows / 7)).astype(np.float32)
    grid = np.stack([columns, rows], -1).astype(float)
    # The leaning picture's pixel shows what the still one has where that pixel goes.
    still = straightened(grid, CAMERA, TURN, READOUT).astype(np.float32)
    seen = cv2.remap(smooth, still[..., 0], still[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    picture = np.repeat(np.rint(seen)[..., None], 3, -1).clip(0, 255).astype(np.uint8)
    back = straightened_image(picture, CAMERA, TURN, READOUT)[8:-8, 8:-8, 0].astype(float)
    assert np.abs(picture[8:-8, 8:-8, 0] - smooth[8:-8, 8:-8]).mean() > 5
    assert np.abs(back - smooth[8:-8, 8:-8]).mean() < 1.0


def test_the_turn_of_two_poses_takes_resting_points_along() -> None:
    before, after = np.eye(4), np.eye(4)
    after[:3, :3] = Rotation.from_rotvec([0.02, -0.05, 0.01]).as_matrix()
    point = np.array([0.3, -0.2, 2.0])
    turned = Rotation.from_rotvec(turn_between(before, after, 0.1) * 0.1).apply(point)
    assert np.allclose(turned, np.linalg.inv(after)[:3, :3] @ point)


def test_a_camera_that_rests_or_reads_at_once_changes_nothing() -> None:
    pixels = np.array([[3.0, 5.0], [150.0, 100.0]])
    assert np.allclose(straightened(pixels, BENT, np.zeros(3), READOUT), pixels, atol=1e-6)
    assert np.allclose(straightened(pixels, BENT, TURN, 0.0), pixels, atol=1e-6)
    assert row_time([0, 119], 120).tolist() == [-0.5, 0.5]
