"""Scores of recordings whose errors are known because they were put there."""

import numpy as np
import pytest

from dust3r_ros.demo.inputs import DemoError, TrueView
from dust3r_ros.demo.measure import Bounds, complaints, depth_score, path_score
from dust3r_ros.demo.recording import Recording
from dust3r_ros.geometry import Camera

CAMERA = Camera(40, 30, 30.0, 30.0, 19.5, 14.5)
SCALE = 3.0  # true metres in a map unit


@pytest.fixture
def truth() -> list[TrueView]:
    rng = np.random.default_rng(3)
    views = []
    for k in range(6):
        pose = np.eye(4)
        pose[:3, 3] = [0.3 * k, 0.05 * k**2, 0.1 * np.sin(k)]
        depth = rng.uniform(1, 4, (30, 40)).astype(np.float32)
        views.append(TrueView(1000 * k, np.zeros((30, 40, 3), np.uint8), CAMERA, pose, depth))
    return views


def _turned(position: np.ndarray) -> np.ndarray:
    """The map's frame: another unit, another origin, another heading."""
    return np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ position / SCALE + [5.0, 6, 7]


def _recording(truth: list[TrueView], depth_error: float = 0.0, offset: float = 0.0) -> Recording:
    depths = {
        v.stamp: v.depth / np.float32(SCALE) * np.where(np.arange(40) % 2, 1 + depth_error, 1 - depth_error).astype(np.float32)
        for v in truth
    }
    trajectory = []
    for k, view in enumerate(truth):
        pose = np.eye(4)
        pose[:3, 3] = _turned(view.pose[:3, 3] + [0, 0, offset * (-1) ** k])
        trajectory.append((view.stamp, pose))
    return Recording(depths, {}, trajectory, None, [])


def test_a_perfect_recording_in_other_units_has_no_error(truth: list[TrueView]) -> None:
    recording = _recording(truth)
    depth, path = depth_score(recording, truth), path_score(recording, truth)
    assert depth.abs_rel == pytest.approx(0, abs=1e-6)
    assert depth.scale == pytest.approx(SCALE)
    assert depth.coverage == 1
    assert path.rmse == pytest.approx(0, abs=1e-9)
    assert path.to_truth.scale == pytest.approx(SCALE)


def test_errors_are_found_as_large_as_they_were_made(truth: list[TrueView]) -> None:
    recording = _recording(truth, depth_error=0.1, offset=0.02)
    assert depth_score(recording, truth).abs_rel == pytest.approx(0.1, rel=0.15)
    path = path_score(recording, truth)
    assert path.rmse == pytest.approx(0.02, rel=0.3)
    assert path.percent == pytest.approx(100 * path.rmse / path.extent)


def test_pixels_without_confidence_are_not_covered(truth: list[TrueView]) -> None:
    recording = _recording(truth)
    half = np.where(np.arange(40) < 20, 10.0, 1.0).astype(np.float32) * np.ones((30, 1), np.float32)
    recording.confidences.update(dict.fromkeys(recording.depths, half))
    assert depth_score(recording, truth).coverage == pytest.approx(0.5)


def test_a_run_that_mapped_nothing_is_refused(truth: list[TrueView]) -> None:
    with pytest.raises(DemoError, match="nothing was mapped"):
        depth_score(Recording({}, {}, [], None, []), truth)
    with pytest.raises(DemoError, match="nothing was mapped"):
        path_score(Recording({}, {}, [], None, []), truth)
    empty = {view.stamp: np.zeros((30, 40), np.float32) for view in truth}
    with pytest.raises(DemoError, match="nothing was mapped"):
        depth_score(Recording(empty, {}, [], None, []), truth)


def test_what_leaves_the_bounds_is_named(truth: list[TrueView]) -> None:
    recording = _recording(truth, depth_error=0.2, offset=0.3)
    depth, path = depth_score(recording, truth), path_score(recording, truth)
    assert complaints(Bounds(abs_rel=0.5, coverage=0.5, path_percent=90), 6, depth, path) == []
    told = complaints(Bounds(abs_rel=0.1, coverage=1.1, path_percent=1.0, placed=0.9), 12, depth, path)
    assert [line.split()[0] for line in told] == ["depth", "depth", "trajectory", "6"]
