"""Errors against a truth that was disturbed by known amounts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dust3r_ros.geometry import Similarity, matrix_from_quaternion
from dust3r_ros.io.evaluation import EvaluationError, depth_error, trajectory_error
from dust3r_ros.io.trajectory import Trajectory, write_tum


def truth(count: int = 40) -> Trajectory:
    """A way on a circle of radius 2."""
    found = []
    for k in range(count):
        pose = np.eye(4)
        pose[:3, 3] = 2 * np.cos(2 * np.pi * k / count), 2 * np.sin(2 * np.pi * k / count), 0.0
        found.append((10**18 + k * 10**8, pose))
    return found


def moved(trajectory: Trajectory, similarity: Similarity, shift: int = 0, noise: float = 0.0) -> Trajectory:
    found = []
    for k, (stamp, pose) in enumerate(trajectory):
        new = pose.copy()
        new[2, 3] += noise * (-1) ** k  # alternates: no similarity takes it back
        new[:3, 3] = similarity.apply(new[:3, 3][None])[0]
        found.append((stamp + shift, new))
    return found


SOMEWHERE = Similarity(0.25, matrix_from_quaternion([0.5, 0.5, 0.5, 0.5]), np.array([5.0, -3.0, 1.0]))


def test_a_similarity_is_no_error_and_its_scale_is_told() -> None:
    error = trajectory_error(moved(truth(), SOMEWHERE, shift=9_000_000), truth())
    assert (error.matched, error.poses) == (40, 40)
    assert error.rmse == pytest.approx(0, abs=1e-6)
    assert error.scale == pytest.approx(4.0)
    assert error.extent == pytest.approx(4.0)


def test_noise_is_measured_in_the_truths_unit() -> None:
    error = trajectory_error(moved(truth(), SOMEWHERE, noise=0.1), truth())
    assert error.rmse == pytest.approx(0.1, rel=1e-2)
    assert error.largest == pytest.approx(0.1, rel=5e-2)
    assert error.percent == pytest.approx(2.5, rel=1e-2)


@pytest.mark.parametrize("flat", [False, True])
def test_the_extent_of_a_long_way(flat: bool) -> None:
    way = truth(3000)
    if not flat:
        way[7][1][2, 3] = 0.3
    assert trajectory_error(way, way).extent == pytest.approx(4.0 if flat else np.hypot(4.0, 0.3), rel=1e-4)


def test_what_cannot_be_compared_says_why() -> None:
    with pytest.raises(EvaluationError, match=r"only 0 of 40 poses .* the truth is of 1000000000\.000"):
        trajectory_error(moved(truth(), SOMEWHERE, shift=10**12), truth())
    with pytest.raises(EvaluationError, match="only 2 of 40"):
        trajectory_error(truth(), truth()[:2])
    with pytest.raises(EvaluationError, match="nothing to compare"):
        trajectory_error([], truth())
    still = [(stamp, np.eye(4)) for stamp, _ in truth()]
    with pytest.raises(EvaluationError, match="all the same"):
        trajectory_error(truth(), still)
    with pytest.raises(EvaluationError, match="cannot be aligned"):
        trajectory_error(still, truth())


def test_depth_after_one_scale() -> None:
    true = np.full((10, 10), 2.0, np.float32)
    found = true / 4
    found[0] *= 1.1  # a tenth of the pixels by 10 %
    found[1] *= 1.5  # a tenth by 50 %
    found[2] = 0  # a tenth unknown
    true[3] = np.nan
    error = depth_error(found, true)
    assert error.scale == pytest.approx(4.0)
    assert error.abs_rel == pytest.approx((0.1 + 0.5) / 8)
    assert error.within_25_percent == pytest.approx(7 / 8)
    assert error.coverage == pytest.approx(8 / 9)
    with pytest.raises(EvaluationError, match="no pixel"):
        depth_error(np.zeros_like(found), true)
    with pytest.raises(EvaluationError, match="shape"):
        depth_error(found[1:], true)


def test_the_command_tells_the_figures(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_tum(tmp_path / "out" / "trajectory.tum", moved(truth(), SOMEWHERE, noise=0.1))
    write_tum(tmp_path / "truth.tum", truth())
    done = subprocess.run(
        [sys.executable, "-m", "dust3r_ros.cli", "compare", str(tmp_path / "out"), str(tmp_path / "truth.tum")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "40 of 40 poses" in done.stdout
    assert "(2.50 %)" in done.stdout
