"""The simulated room is the truth that others are measured against: here it is measured against itself."""

import cv2
import numpy as np
import pytest

from dust3r_ros.simulation import SimulatedView, room_sequence
from dust3r_ros.simulation.walks import camera_pose


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(frames=4, width=160, height=120))


def _points(view: SimulatedView) -> np.ndarray:
    """World points (H, W, 3) by the pinhole equation, written out here once more."""
    v, u = np.mgrid[: view.camera.height, : view.camera.width]
    rays = np.stack([(u - view.camera.cx) / view.camera.fx, (v - view.camera.cy) / view.camera.fy, np.ones(u.shape)], axis=-1)
    return (rays * view.depth[..., None]) @ view.pose[:3, :3].T + view.pose[:3, 3]


def _project(view: SimulatedView, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    local = (points - view.pose[:3, 3]) @ view.pose[:3, :3]
    pixels = local[..., :2] / local[..., 2:] * [view.camera.fx, view.camera.fy] + [view.camera.cx, view.camera.cy]
    return pixels.astype(np.float32), local[..., 2]


def test_a_view_is_what_its_types_promise(views: list[SimulatedView]) -> None:
    view = views[1]
    assert view.image.shape == (120, 160, 3)
    assert view.image.dtype == np.uint8
    assert view.depth.shape == (120, 160)
    assert view.depth.dtype == np.float32
    assert np.all(np.isfinite(view.depth))
    assert view.depth.min() > 0.5
    np.testing.assert_allclose(view.pose[:3, :3] @ view.pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view.pose[:3, :3]) == pytest.approx(1)
    assert np.diff([v.stamp for v in views]).tolist() == [100_000_000] * 3


def test_depth_and_poses_agree_between_views(views: list[SimulatedView]) -> None:
    first, last = views[0], views[-1]
    pixels, depth = _project(last, _points(first))
    seen = cv2.remap(last.depth, pixels[..., 0], pixels[..., 1], cv2.INTER_NEAREST, borderValue=0)
    inside = seen > 0
    error = np.abs(seen - depth)[inside] / depth[inside]
    assert inside.mean() > 0.75
    assert np.median(error) < 0.003  # half a pixel on a slanted surface
    assert np.mean(error < 0.02) > 0.9  # the rest is hidden in one of the two


def test_images_agree_with_the_geometry(views: list[SimulatedView]) -> None:
    first, last = views[0], views[-1]
    pixels, depth = _project(last, _points(first))
    seen = cv2.remap(last.depth, pixels[..., 0], pixels[..., 1], cv2.INTER_NEAREST, borderValue=0)
    warped = cv2.remap(last.image, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR).astype(float)
    visible = np.abs(seen - depth) < 0.02 * depth
    true = np.abs(warped - first.image)[visible].mean()
    unmoved = np.abs(last.image.astype(float) - first.image)[visible].mean()
    assert true < 6
    assert true < 0.5 * unmoved


def test_depth_is_exact_on_a_known_wall(views: list[SimulatedView]) -> None:
    points = _points(views[0])
    wallpaper = np.abs(points[..., 1] - 2.3) < 1e-5  # the back wall stands at y = 2.3 m
    assert wallpaper.mean() > 0.1


def test_the_camera_moves_sideways_by_a_few_centimetres() -> None:
    poses = np.array([camera_pose(0.1 * k) for k in range(60)])
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert steps.min() > 0.02
    assert steps.max() < 0.07
    turns = np.einsum("kij,kij->k", poses[1:, :3, :3], poses[:-1, :3, :3])
    assert np.degrees(np.arccos((turns - 1) / 2)).max() < 2.0
    assert np.ptp(poses[:, 0, 3]) > 1.8
    assert np.all(np.abs(poses[:, :3, 3]) < [2.4, 2.2, 2.5])  # inside the room


def test_surfaces_carry_texture_everywhere(views: list[SimulatedView]) -> None:
    gray = cv2.cvtColor(views[0].image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    spread = np.sqrt(np.maximum(cv2.blur(gray**2, (15, 15)) - cv2.blur(gray, (15, 15)) ** 2, 0))
    assert np.quantile(spread, 0.05) > 2.5  # grey levels; the sensor's noise alone is 1.5
    assert 80 < gray.mean() < 160
    assert np.mean((gray < 5) | (gray > 250)) < 0.01


def test_the_same_seed_gives_the_same_view_and_another_seed_another(views: list[SimulatedView]) -> None:
    again = room_sequence(frames=9, width=160, height=120)[2]
    np.testing.assert_array_equal(again.image, views[2].image)
    np.testing.assert_array_equal(again.depth, views[2].depth)
    other = room_sequence(frames=1, width=160, height=120, seed=1)[0]
    assert np.mean(other.image != views[0].image) > 0.5
    np.testing.assert_array_equal(other.pose, views[0].pose)


def test_a_view_is_the_same_scene_at_every_size(views: list[SimulatedView]) -> None:
    large = room_sequence(frames=1, width=320, height=240)[0]
    assert large.camera.fx == pytest.approx(2 * views[0].camera.fx)
    half = cv2.resize(large.image, (160, 120), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(half - views[0].image).mean() < 6


@pytest.mark.parametrize(("frames", "width", "height"), [(-1, 64, 48), (3, 0, 48), (3, 64, 4)])
def test_an_impossible_sequence_is_refused(frames: int, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="cannot be rendered"):
        room_sequence(frames, width, height)


def test_a_sequence_is_a_sequence() -> None:
    sequence = room_sequence(frames=3, width=32, height=24)
    assert len(sequence) == 3
    assert sequence[-1].stamp == sequence[2].stamp
    assert [view.stamp for view in sequence[1:]] == [sequence[1].stamp, sequence[2].stamp]
    with pytest.raises(IndexError, match="frame 3 of 3"):
        sequence[3]
