"""A pose for every frame or for keyframes alone, on a real sequence: `python bench/online_kitchen.py FOLDER`; FOLDER as in bench/mapper.py.

Both trajectories are of the same run and are compared at the same frames, each after its own Sim(3) alignment: every frame as it was
tracked, and places between keyframes by straight line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from goal_table import Row
from mapper import recorded

from dust3r_ros.estimators import create_estimator
from dust3r_ros.geometry import procrustes
from dust3r_ros.mapping import Mapper

PARTS = ((0, 30), (30, 30), (60, 30), (0, 100))


def compared(folder: Path, start: int, count: int, rate: float = 30.0, focal: float = 525.0) -> Row:
    frames, truth = recorded(folder, rate, focal, start, count)
    mapper = Mapper(estimator=create_estimator("flow"))
    for frame in frames:
        mapper.add(frame)
    path = {stamp: pose[:3, 3] for stamp, pose in mapper.trajectory()}
    keyframes = {keyframe.stamp: keyframe.pose[:3, 3] for keyframe in mapper.keyframes}
    within = np.array([stamp for stamp in path if min(keyframes) <= stamp <= max(keyframes)])
    true = np.stack([truth[stamp][:3, 3] for stamp in within])
    at = np.array(list(keyframes))
    between = np.stack([np.interp(within - at[0], at - at[0], axis) for axis in np.stack(list(keyframes.values())).T], axis=1)
    every, alone = (_error(found, true) for found in (np.stack([path[stamp] for stamp in within]), between))
    what = f"{folder.name} {start}+{count}: {len(path)} of {len(truth)} frames have a pose, {len(keyframes)} keyframes"
    found = f"{1000 * every:.1f} mm, keyframes alone {1000 * alone:.1f} mm"
    return Row(what, found, "all, and lower", len(path) == len(truth) and every < alone)


def _error(found: np.ndarray, true: np.ndarray) -> float:
    """Root mean square, m."""
    return float(np.sqrt(np.mean(np.sum((procrustes(found, true).apply(found) - true) ** 2, axis=1))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--focal", type=float, default=525.0, help="pixels")
    options = parser.parse_args()
    if options.folder is None:
        print("not measured: give the FOLDER of a real sequence")
        return
    for start, count in PARTS:
        print(compared(options.folder, start, count, focal=options.focal), flush=True)


if __name__ == "__main__":
    main()
