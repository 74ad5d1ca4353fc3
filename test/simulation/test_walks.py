"""Circles in the room and walks along corridors: their depth is exact, their loops close, and a seed says it all."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from dust3r_ros.simulation import SimulatedSequence, circle_sequence, corridor_sequence, ring_sequence
from dust3r_ros.simulation.corridor import CELL, HEIGHT
from dust3r_ros.simulation.walks import circle_pose, corridor_pose, ring_pose

WIDTH, HIGH = 160, 120
SEQUENCES: dict[str, Callable[..., SimulatedSequence]] = {
    "circle": lambda seed=0: circle_sequence(48, WIDTH, HIGH, seed),
    "circle outwards": lambda seed=0: circle_sequence(48, WIDTH, HIGH, seed, inward=False),
    "corridor": lambda seed=0: corridor_sequence(100, WIDTH, HIGH, seed),
    "ring": lambda seed=0: ring_sequence(200, WIDTH, HIGH, seed),
}
every_sequence = pytest.mark.parametrize("name", list(SEQUENCES))


def world_points(sequence: SimulatedSequence, index: int) -> np.ndarray:
    """(H, W, 3) by the pinhole equation."""
    camera, pose = sequence.camera, sequence.pose(index)
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
    return (rays * sequence.depth(index)[..., None]) @ pose[:3, :3].T + pose[:3, 3]


@every_sequence
@pytest.mark.parametrize("start", [0, 21, 46])
def test_depth_and_poses_agree_between_views(name: str, start: int) -> None:
    sequence = SEQUENCES[name]()
    camera, pose = sequence.camera, sequence.pose(start + 1)
    local = (world_points(sequence, start) - pose[:3, 3]) @ pose[:3, :3]
    pixels = (local[..., :2] / local[..., 2:] * [camera.fx, camera.fy] + [camera.cx, camera.cy]).astype(np.float32)
    seen = cv2.remap(sequence.depth(start + 1), pixels[..., 0], pixels[..., 1], cv2.INTER_NEAREST, borderValue=0)
    inside = (seen > 0) & (local[..., 2] > 0)
    error = (np.abs(seen - local[..., 2]) / local[..., 2])[inside]
    assert inside.mean() > 0.6
    assert np.median(error) < 0.005  # half a pixel on a slanted surface
    assert np.mean(error < 0.03) > 0.9  # the rest is hidden in one of the two


def test_depth_is_exact_on_a_corridors_floor_and_ceiling() -> None:
    for sequence in (SEQUENCES["corridor"](), SEQUENCES["ring"]()):
        for index in (3, 60):
            z = world_points(sequence, index)[..., 2]
            assert z.min() > -1e-4
            assert z.max() < HEIGHT + 1e-4
            assert np.mean(np.minimum(np.abs(z), np.abs(z - HEIGHT)) < 1e-4) > 0.02


@every_sequence
def test_a_view_holds_what_is_asked_for_alone(name: str) -> None:
    sequence = SEQUENCES[name]()
    view = sequence[-3]
    assert view.image.shape == (HIGH, WIDTH, 3)
    assert view.depth.dtype == np.float32
    np.testing.assert_array_equal(view.depth, sequence.depth(-3))
    np.testing.assert_array_equal(view.pose, sequence.pose(len(sequence) - 3))
    np.testing.assert_allclose(view.pose[:3, :3] @ view.pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view.pose[:3, :3]) == pytest.approx(1)
    gray = cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)
    assert 60 < gray.mean() < 190
    assert np.mean((gray < 5) | (gray > 250)) < 0.05


@every_sequence
def test_the_same_seed_gives_the_same_view_and_another_seed_another(name: str) -> None:
    first, again, other = (SEQUENCES[name](seed)[30] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.depth, again.depth)
    assert np.mean(first.image != other.image) > 0.5


@every_sequence
def test_nothing_stands_in_the_cameras_way_and_no_ray_slips_through(name: str) -> None:
    sequence = SEQUENCES[name]()
    depths = np.stack([sequence.depth(k) for k in range(0, len(sequence), 4)])
    assert np.isfinite(depths).all()
    assert depths.min() > 0.4


@every_sequence
def test_the_camera_moves_evenly(name: str) -> None:
    sequence = SEQUENCES[name]()
    poses = np.stack([sequence.pose(k) for k in range(len(sequence))])
    steps = np.linalg.norm(np.diff(poses[:, :2, 3], axis=0), axis=1)
    assert steps.max() < 1.5 * np.median(steps)
    assert steps.min() > 0.5 * np.median(steps)
    turns = np.einsum("kij,kij->k", poses[1:, :3, :3], poses[:-1, :3, :3])
    assert np.degrees(np.arccos(np.clip((turns - 1) / 2, -1, 1))).max() < 25


def test_loops_close() -> None:
    for cells in (3, 5):
        np.testing.assert_allclose(ring_pose(1.0, cells), ring_pose(0.0, cells), atol=1e-12)
        np.testing.assert_allclose(ring_pose(1.0 - 1e-9, cells), ring_pose(0.0, cells), atol=1e-6)
    np.testing.assert_allclose(circle_pose(1.0, 1.6, True), circle_pose(0.0, 1.6, True), atol=1e-12)


def test_paths_have_their_size() -> None:
    ring = np.stack([ring_pose(turn, 5)[:2, 3] for turn in np.linspace(0, 1, 400)])
    np.testing.assert_allclose(np.ptp(ring, axis=0), 4 * CELL, atol=0.3)  # the sway of the walker
    circle = np.stack([circle_pose(turn, 1.6, False)[:2, 3] for turn in np.linspace(0, 1, 50)])
    np.testing.assert_allclose(np.linalg.norm(circle, axis=1), 0.8, rtol=1e-12)
    assert np.linalg.norm(corridor_pose(100.0)[:2, 3] - corridor_pose(0.0)[:2, 3]) == pytest.approx(100, abs=0.1)


def test_a_circle_looks_in_or_out() -> None:
    for inward, sign in ((True, -1), (False, 1)):
        pose = circle_pose(0.2, 1.6, inward)
        assert sign * pose[:2, 2] @ pose[:2, 3] > 0.7


def test_a_ring_without_an_inside_is_refused() -> None:
    with pytest.raises(ValueError, match="no inside"):
        ring_sequence(10, 64, 48, cells=2)
