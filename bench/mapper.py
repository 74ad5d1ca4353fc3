"""What the whole Mapper reaches on a real sequence, every frame through it: `python bench/mapper.py FOLDER`.

FOLDER holds pictures named by their frame number and `groundtruth.tum` (camera to world, seconds). Without FOLDER it is the simulated room.
Trajectory error: absolute position error (RMSE) after evo's Sim(3) alignment, as a share of the extent (the largest distance between two
true positions).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from evo.core.trajectory import PosePath3D
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from dust3r_ros.estimators import create_estimator
from dust3r_ros.geometry import Camera
from dust3r_ros.io.images import read_picture
from dust3r_ros.io.trajectory import read_tum
from dust3r_ros.mapping import Frame, Mapper, MapperConfig
from dust3r_ros.mapping.config import EstimatorConfig
from dust3r_ros.simulation import room_sequence

Truth = dict[int, NDArray[np.float64]]  # stamp in ns -> camera to world


def recorded(folder: Path, rate: float, focal: float | None, start: int, count: int) -> tuple[Iterator[Frame], Truth]:
    """Pictures whose names are frame numbers at `rate` a second, with the truth at their stamps. `focal` None: the camera is not told."""
    poses = {round(stamp * 1e-9 * rate): pose for stamp, pose in read_tum(folder / "groundtruth.tum")}
    files = sorted(folder.glob("*.jpg"))[start : start + count]
    truth = {round(int(file.stem) / rate * 1e9): poses[int(file.stem)] for file in files}

    def frames() -> Iterator[Frame]:
        for file, stamp in zip(files, truth, strict=True):
            image, _ = read_picture(file)
            height, width = image.shape[:2]
            camera = None if focal is None else Camera(width, height, focal, focal, width / 2, height / 2)
            yield Frame(stamp, image, camera)

    return frames(), truth


def simulated() -> tuple[Iterator[Frame], Truth]:
    views = list(room_sequence(60, 640, 480))
    return (Frame(view.stamp, view.image, view.camera) for view in views), {view.stamp: view.pose for view in views}


def measure(name: str, frames: Iterator[Frame], truth: Truth, self_calibration: str = "auto") -> None:
    config = MapperConfig(estimator=EstimatorConfig(self_calibration=self_calibration))
    mapper, keyframe_seconds, track_seconds = Mapper(config, create_estimator("flow")), [], []
    started = time.perf_counter()
    for frame in frames:
        update = mapper.add(frame)
        track_seconds.append(update.seconds["track"])
        if update.is_keyframe:
            keyframe_seconds.append(sum(update.seconds.values()))
    elapsed = time.perf_counter() - started
    trajectory = mapper.trajectory()
    estimated = PosePath3D(poses_se3=[pose for _, pose in trajectory])
    reference = PosePath3D(poses_se3=[truth[stamp] for stamp, _ in trajectory])
    estimated.align(reference, correct_scale=True)
    error = float(np.sqrt(np.mean(np.sum((estimated.positions_xyz - reference.positions_xyz) ** 2, axis=1))))
    extent = float(pdist(np.stack([pose[:3, 3] for pose in truth.values()])).max())
    print(
        f"{name}: {len(trajectory)} of {len(truth)} frames have a pose, {len(mapper.keyframes)} keyframes, "
        f"trajectory {100 * error / extent:.2f} % of {extent:.2f} m, {len(truth) / elapsed:.1f} frames/s, "
        f"track {1000 * np.median(track_seconds):.0f} ms, "
        f"keyframe {1000 * np.median(keyframe_seconds):.0f} ms (medians)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rate", type=float, default=30.0, help="frame numbers a second")
    parser.add_argument("--focal", type=float, help="pixels; left out: the camera is not told")
    parser.add_argument("--self-calibration", choices=("auto", "always", "never"), default="auto")
    arguments = parser.parse_args()
    if arguments.folder is None:
        measure("room", *simulated())
        return
    for start, count in ((0, 30), (30, 30), (60, 30), (0, 100)):
        frames, truth = recorded(arguments.folder, arguments.rate, arguments.focal, start, count)
        measure(f"{arguments.folder.name} {start}+{count}", frames, truth, arguments.self_calibration)


if __name__ == "__main__":
    main()
