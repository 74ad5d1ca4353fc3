"""What is to be reached online, in one table of goal and found: `python bench/online.py all [--kitchen FOLDER] [--write FILE.md]`.

Sections, in place of `all`: rates (over ROS, where rclpy is), corridor (a loop of 500 m), lost, doors (1000 places that look alike), hour
(10,000 keyframes, twice), scale, rigs, covariance, kitchen (with --kitchen). Each has a program of its own too, which it calls, and where
more can be set: online_*.py, hour.py, metric_scale.py, rigs.py, odometry_covariance.py. All of it takes some two hours on two cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from goal_table import Row, table

SCALE_GOALS = {"odometry, steps 5 % off": 0.02, "30 ranges a picture, 2 % noise": 0.01}  # largest error of any seed
NEES = (0.7, 1.5)


def rates(options: argparse.Namespace) -> Iterator[Row]:
    if importlib.util.find_spec("rclpy") is None:
        yield Row("camera rate over ROS", "not measured: no rclpy", "at least 29 of 30")
        return
    from online_rates import measured, views

    yield from measured(views(options.frames, 30.0, options.keep), 30.0, {}).rows()


def corridor(options: argparse.Namespace) -> Iterator[Row]:
    from online_corridor import walked

    yield from walked(options.metres).rows()


def lost(_: argparse.Namespace) -> Iterator[Row]:
    from online_lost import room

    yield from room()


def doors(options: argparse.Namespace) -> Iterator[Row]:
    from online_lost import doors as passed

    yield passed(options.doors)


def hour(options: argparse.Namespace) -> Iterator[Row]:
    from hour import WAYS, drive, rows

    for way in WAYS:
        yield from rows(way, drive(way, options.keyframes, max(1, options.keyframes // 10), {}, background=False))


def scale(options: argparse.Namespace) -> Iterator[Row]:
    from metric_scale import measured

    for source, error, _ in measured(options.seeds):
        found = f"{100 * np.sqrt((error**2).mean()):.2f} % rms, {100 * error.max():.2f} % at most"
        goal = SCALE_GOALS.get(source)
        yield (
            Row(f"scale: {source}", found)
            if goal is None
            else Row(f"scale: {source}", found, f"{100 * goal:.0f} %", bool(error.max() < goal))
        )


def rigs(options: argparse.Namespace) -> Iterator[Row]:
    from rigs import measured

    for name, (end, largest, off, said, tracked, _) in measured(options.seeds):
        metric = f", scale {100 * np.abs(off).max():.1f} % off" if np.isfinite(said).all() else ""
        found = f"{100 * end.max():.1f} cm off at the end, {100 * largest.max():.1f} at most{metric}"
        yield Row(f"rig: {name}; a tracked set {np.median(tracked):.0f} ms", found)


def covariance(options: argparse.Namespace) -> Iterator[Row]:
    from odometry_covariance import measured

    for row in measured(60, 160, [0.01], options.seeds):
        nees = float(str(row["nees"]))
        goal = f"{NEES[0]} to {NEES[1]}"
        yield Row(f"normalised error squared of the odometry, {row['walk']}", f"{nees:.2f}", goal, NEES[0] <= nees <= NEES[1])


def kitchen(options: argparse.Namespace) -> Iterator[Row]:
    if options.kitchen is None:
        yield Row("red kitchen", "not measured: give --kitchen FOLDER", "all, and lower")
        return
    from online_kitchen import PARTS, compared

    for start, count in PARTS:
        yield compared(options.kitchen, start, count)


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    one.__name__: one for one in (rates, corridor, lost, doors, hour, scale, rigs, covariance, kitchen)
}


def measured(sections: list[str], options: argparse.Namespace) -> Iterator[Row]:
    """One section after the other; one that fails is a row, and no end."""
    for name in sections:
        print(f"-- {name}, {time.strftime('%H:%M:%S')}, load {os.getloadavg()[0]:.1f}", flush=True)
        try:
            for row in SECTIONS[name](options):
                print(row, flush=True)
                yield row
        except Exception as error:
            traceback.print_exc()
            yield Row(name, f"failed: {type(error).__name__}: {error}", "", False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--kitchen", type=Path, help="folder as in bench/mapper.py")
    parser.add_argument("--frames", type=int, default=300, help="of the camera whose rate is measured")
    parser.add_argument("--keep", type=Path, help="file (.npy) for its rendered pictures")
    parser.add_argument("--metres", type=float, default=500.0, help="of corridor")
    parser.add_argument("--doors", type=int, default=1000)
    parser.add_argument("--keyframes", type=int, default=10_000, help="of the simulated hour")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--write", type=Path, help="file for the table, in Markdown")
    options = parser.parse_args()
    unknown = [name for name in options.sections if name not in (*SECTIONS, "all")]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}: there are all, {', '.join(SECTIONS)}")
    sections = list(SECTIONS) if not options.sections or "all" in options.sections else options.sections
    print(f"{os.cpu_count()} cores")
    rows = []
    for row in measured(sections, options):
        rows.append(row)
        if options.write is not None:
            options.write.write_text(table(rows))
    goals = [row.reached for row in rows if row.reached is not None]
    print(f"\n{table(rows)}\n{sum(goals)} of {len(goals)} goals reached")


if __name__ == "__main__":
    main()
