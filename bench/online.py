"""What is to be reached online, in one table: `python bench/online.py [SECTION ...] [--kitchen FOLDER]`.

Sections: rates (over ROS, where rclpy is), corridor (a loop of 500 m), doors (1000 places that look alike), lost, scale, covariance,
kitchen (with --kitchen). Each is a program of its own too (bench/online_*.py, metric_scale.py, odometry_covariance.py), where more can be
set.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

Rows = Iterator[tuple[str, str, str]]  # what, found, goal


def rates(options: argparse.Namespace) -> Rows:
    if importlib.util.find_spec("rclpy") is None:
        yield "rates", "not measured: no rclpy", ""
        return
    from online_rates import measured, views

    yield from measured(views(options.frames, 30.0, options.keep), 30.0, {}).rows()


def corridor(options: argparse.Namespace) -> Rows:
    from online_corridor import walked

    yield from walked(options.metres).rows()


def doors(options: argparse.Namespace) -> Rows:
    from online_lost import doors as passed

    passed(options.doors)
    yield "look-alike places", "see above", "no false loop"


def lost(_: argparse.Namespace) -> Rows:
    from online_lost import room

    room()
    yield "lost and found", "see above", "found within 10 frames"


def scale(options: argparse.Namespace) -> Rows:
    from metric_scale import SOURCES, run

    for source, changes in SOURCES.items():
        error = np.abs([run(source, changes, seed)[0] for seed in range(options.seeds)])
        goal = "2 %" if "steps" in source else "1 %" if "ranges" in source else ""
        yield f"scale: {source}", f"{100 * np.sqrt((error**2).mean()):.2f} % rms, {100 * error.max():.2f} % at most", goal


def covariance(options: argparse.Namespace) -> Rows:
    from support.odometry_errors import WALKS, normalised_errors, odometry_errors

    for walk in WALKS:
        runs = [odometry_errors(walk, 60, 160, 0.01, seed) for seed in range(options.seeds)]
        found = np.concatenate([normalised_errors(run, "all") for run in runs]).mean()
        yield f"normalised error of the odometry, {walk}", f"{found:.2f}", "0.7 to 1.5"


def kitchen(options: argparse.Namespace) -> Rows:
    if options.kitchen is None:
        yield "kitchen", "not measured: give --kitchen FOLDER", ""
        return
    from online_kitchen import PARTS, compared

    for start, count in PARTS:
        yield compared(options.kitchen, start, count)


SECTIONS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    one.__name__: one for one in (rates, corridor, doors, lost, scale, covariance, kitchen)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--kitchen", type=Path, help="folder as in bench/mapper.py")
    parser.add_argument("--frames", type=int, default=300, help="of the camera whose rate is measured")
    parser.add_argument("--keep", type=Path, help="file (.npy) for its rendered pictures")
    parser.add_argument("--metres", type=float, default=500.0, help="of corridor")
    parser.add_argument("--doors", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name in options.sections or SECTIONS:
        for what, found, goal in SECTIONS[name](options):
            print(f"{what:75} {found:45} {goal}", flush=True)


if __name__ == "__main__":
    main()
