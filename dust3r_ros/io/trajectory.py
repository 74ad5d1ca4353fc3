"""Trajectories as TUM files: `timestamp tx ty tz qx qy qz qw` a line, seconds and map units, camera to world."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import GeometryError, matrix_from_quaternion, quaternion_from_matrix

Trajectory = list[tuple[int, NDArray[np.float64]]]  # [(stamp in ns, camera to world 4x4)]


class TrajectoryError(Dust3rError):
    """A trajectory file that cannot be read."""


def write_tum(path: Path, trajectory: Iterable[tuple[int, NDArray[np.float64]]]) -> None:
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for stamp, pose in trajectory:
        values = [*pose[:3, 3], *quaternion_from_matrix(pose[:3, :3])]
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} " + " ".join(f"{value:.7f}" for value in values))
    path.write_text("\n".join(lines) + "\n")


def read_tum(path: Path) -> Trajectory:
    """Raises TrajectoryError, which names the file and the line."""
    trajectory: Trajectory = []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrajectoryError(f"trajectory {path} cannot be read: {getattr(error, 'strerror', None) or error}; give a text file") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        try:
            stamp = int(Decimal(fields[0]) * 10**9) if float(fields[0]) else 0  # float tells what is wrong with it
            values = [float(field) for field in fields[1:]]
            if len(values) != 7:
                raise ValueError(f"{len(fields)} numbers instead of 8")
            if not np.isfinite(values).all():
                raise ValueError(f"a pose of {' '.join(fields[1:])} is not finite")
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = matrix_from_quaternion(values[3:]), values[:3]
        except (ValueError, ArithmeticError, GeometryError) as error:
            raise TrajectoryError(f"{path}, line {number}: {error}; give 'timestamp tx ty tz qx qy qz qw'") from error
        trajectory.append((stamp, pose))
    return trajectory
