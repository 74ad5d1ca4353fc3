"""How near the map comes to metres: `python bench/metric_scale.py [--seeds 6]`.

5.0 m round the simulated room, 56 pictures of 160x120, pointmaps with 2 % noise, each pair on a scale of its own. For each source: metres
per map unit at the end, by the best similarity of all frames onto the truth, less 1; and the standard deviation that the Mapper says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "test"))
from support.simulated_estimator import SimulatedEstimator
from support.walk import once_round, wheels

from dust3r_ros.geometry import procrustes
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, depth_of_ranges, with_settings

COMMON = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}
SOURCES = {
    "odometry, steps 5 % off": {},
    "the same, wheels spinning in 3 steps of 55": {},
    "30 ranges a picture, 2 % noise": {},
    "height of the camera": {"scale.camera_height": 1.45, "scale.camera_pitch": 14.0},  # it sways by 5 cm and as many degrees
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    print(f"{'source':45} {'rms error':>9} {'largest':>8}  said")
    for source, error, said in measured(options.seeds):
        errors = f"{100 * np.sqrt((error**2).mean()):7.2f} % {100 * error.max():6.2f} %"
        print(f"{source:45} {errors}  {100 * said.min():.1f} to {100 * said.max():.1f} %", flush=True)


def measured(seeds: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each source, the errors [seeds] of the scale and what the Mapper says of them [seeds], shares."""
    for source, changes in SOURCES.items():
        found = np.array([run(source, changes, seed) for seed in range(seeds)])
        yield source, np.abs(found[:, 0]), found[:, 1]


def run(source: str, changes: dict[str, float], seed: int) -> tuple[float, float]:
    """(error of the scale, what the Mapper says of it), shares."""
    views, rng = once_round(), np.random.default_rng(seed)
    mapper = Mapper(with_settings(MapperConfig(), {**COMMON, **changes}), SimulatedEstimator(views, size=160, noise=0.02, seed=seed))
    for view, pose in zip(views, wheels(views, 0.05, seed, slip=(11, 12, 30) if "spinning" in source else ()), strict=True):
        if "steps" in source:
            mapper.add_odometry(view.stamp, pose)
        elif "ranges" in source:
            pixels = np.stack([rng.integers(0, 160, 30), rng.integers(0, 120, 30)], axis=1)
            ranges = view.depth[tuple(pixels.T[::-1])] * np.linalg.norm(view.camera.unproject(pixels), axis=1)
            mapper.add_depth(view.stamp, depth_of_ranges(view.camera, pixels, ranges * (1 + 0.02 * rng.normal(size=30))))
        mapper.add(Frame(view.stamp, view.image, view.camera))
    truth = {view.stamp: view.pose[:3, 3] for view in views}
    trajectory = mapper.trajectory()
    positions = np.stack([pose[:3, 3] for _, pose in trajectory])
    return procrustes(positions, np.stack([truth[stamp] for stamp, _ in trajectory])).scale - 1.0, mapper.scale.uncertainty


if __name__ == "__main__":
    main()
