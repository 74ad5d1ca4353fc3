"""A loop of corridors walked once round: `python bench/online_corridor.py [--metres 500]`.

The estimator is told the truth with 1 % noise, and that pairs of neighbours turn too far by `--bend`: drift that only the loop takes out.
How far off the end is when the walk comes back to where it began, before and after the loop is closed, and the error of the trajectory.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from goal_table import Row

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.geometry import procrustes
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, with_settings
from dust3r_ros.simulation import ring_sequence
from dust3r_ros.simulation.corridor import CELL

STEP = 0.25  # m from view to view
WIDTH, HEIGHT = 96, 72
PERIOD = 100_000_000  # ns between frames
AGAIN = 40  # views of the beginning, seen again
SETTINGS = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.1}


@dataclass(frozen=True)
class Walk:
    metres: float
    keyframes: int
    loops: int
    before: float  # m that the end is off just before the loop
    after: float
    error: float  # m, root mean square of all frames, after the loop
    seconds: float

    def rows(self) -> list[Row]:
        share = self.error / self.metres
        return [
            Row(f"corridor of {self.metres:.0f} m, {self.keyframes} keyframes: end off before the loop", f"{self.before:.2f} m"),
            Row(f"after the loop ({self.loops} joined)", f"{self.after:.2f} m"),
            Row("trajectory after it, share of the way", f"{100 * share:.3f} %", "under 0.3 %", share < 0.003),
            Row("time", f"{self.seconds:.0f} s"),
        ]


def walked(metres: float, bend: float = 0.0005) -> Walk:
    cells = max(3, round(metres / 4 / CELL) + 1)
    count = round(metres / STEP)
    once = ring_sequence(count, WIDTH, HEIGHT, cells=cells)
    views = [replace(view, stamp=(k + 1) * PERIOD) for k, view in enumerate(once)]
    views += [replace(view, stamp=(count + k + 1) * PERIOD) for k, view in enumerate(views[:AGAIN])]
    mapper = Mapper(with_settings(MapperConfig(), SETTINGS), SimulatedEstimator(views, size=WIDTH, noise=0.01, bend=bend))
    truth = {view.stamp: view.pose for view in views}
    began, loops, before, is_closed = time.perf_counter(), 0, None, False
    for k, view in enumerate(views):
        update = mapper.add(Frame(view.stamp, view.image, view.camera))
        loops += len(update.loops)
        is_closed = is_closed or any(new - old > len(mapper.keyframes) / 2 for old, new in update.loops)
        if not is_closed and k % 5 == 0 and 2 * k >= count:  # the last value counts: the corridor's beginning may be seen from afar
            before = _end_off(mapper, truth)
    path = dict(mapper.trajectory())
    found, true = (np.stack([of[stamp][:3, 3] for stamp in path]) for of in (path, truth))
    error = float(np.sqrt(np.mean(np.sum((procrustes(found, true).apply(found) - true) ** 2, axis=1))))
    way = float(np.linalg.norm(np.diff(np.stack([view.pose[:3, 3] for view in views[:count]]), axis=0), axis=1).sum())
    assert before is not None
    return Walk(way, len(mapper.keyframes), loops, before, _end_off(mapper, truth), error, time.perf_counter() - began)


def _end_off(mapper: Mapper, truth: dict[int, np.ndarray]) -> float:
    """m that the newest frame is from the truth, if the first is where it was and the first 10 m are as long as they were."""
    path = mapper.trajectory()
    found = np.stack([pose[:3, 3] for _, pose in path])
    true = np.stack([truth[stamp][:3, 3] for stamp, _ in path])
    longer, short = (np.linalg.norm(np.diff(way[: round(10 / STEP)], axis=0), axis=1).sum() for way in (true, found))
    own = np.linalg.inv(path[0][1])
    end = own[:3, :3] @ found[-1] + own[:3, 3]
    first = truth[path[0][0]]
    return float(np.linalg.norm(first[:3, :3] @ (longer / short * end) + first[:3, 3] - true[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metres", type=float, default=500.0)
    parser.add_argument("--bend", type=float, default=0.0005, help="radians that neighbouring keyframes turn too far")
    options = parser.parse_args()
    for row in walked(options.metres, options.bend).rows():
        print(row)


if __name__ == "__main__":
    main()
