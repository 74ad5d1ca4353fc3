"""Lost and found, measured: `python bench/online_lost.py`.

Along a corridor of identical doors, where all that looks alike is another place: loops that were tried, and how many were false. Then
in the simulated room, from which the camera is taken away in several ways: frames until it is found again, and how far off; and a round in
eight parts, in any order, the camera covered and carried between them: whether all becomes one map, and how far off it is. The estimator
is told the truth with 1 % noise (in the corridor: but for which door it is), so that what is measured is not a network's quality.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from goal_table import Row

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
from support.simulated_estimator import FooledEstimator, SimulatedEstimator

from dust3r_ros.geometry import procrustes
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, MapUpdate, TrackingState
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.simulation import SimulatedView, circle_sequence, identical_doors_sequence

STEPS, DOOR = 4, 2.4  # views a door; metres from door to door
WINDOW = 4  # keyframes; within it the estimator is not fooled, or the odometry would be
PERIOD = 100_000_000  # ns between frames
MAPPED = 80  # of the 110 views of a round
PARTS, SHARED = 8, 3  # of the round; views that follow each other in two of them
SMALL = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}


def doors(count: int) -> Row:
    """Forth along the doors and two thirds of the way back, every picture new."""
    forth, back = count * STEPS * 3 // 5, count * STEPS * 2 // 5
    sequence = identical_doors_sequence(forth + STEPS * count + back, 96, 72, steps=STEPS)
    later = -(-forth // STEPS) * STEPS
    views = [sequence[k] for k in range(forth)]
    views += [replace(sequence[later + k], pose=sequence.pose(k)) for k in range(forth - 2, forth - 2 - back, -1)]
    settings = {
        "window.size": WINDOW,
        "window.scene_graph": "swin-2",
        "map.voxel_size": 0.1,
        "alignment.every": 0,
        "map.max_keyframes": 100_000,
    }
    mapper = Mapper(with_settings(MapperConfig(), settings), FooledEstimator(views, DOOR, neighbours=WINDOW, size=96, noise=0.01))
    tried, loops, started = 0, [], time.perf_counter()
    for n, view in enumerate(views):
        update = mapper.add(Frame((n + 1) * PERIOD, view.image, view.camera))
        tried += "loops" in update.seconds
        loops += update.loops
    truth = {(n + 1) * PERIOD: view.pose[:3, 3] for n, view in enumerate(views)}
    stamps = {keyframe.index: keyframe.stamp for keyframe in mapper.keyframes}
    apart = np.array([np.linalg.norm(truth[stamps[i]] - truth[stamps[j]]) for i, j in loops])
    false = int((apart > DOOR / 2).sum())
    what = f"{len(views) // STEPS} identical doors passed: {len(mapper.keyframes)} keyframes, {time.perf_counter() - started:.0f} s"
    return Row(what, f"{tried} proposals, {len(loops)} loops, {false} of them false", "no false loop", false == 0)


def ways_to_be_lost(
    views: list[SimulatedView],
) -> Iterator[tuple[str, list[tuple[float, SimulatedView]], list[tuple[float, SimulatedView]]]]:
    """Name; what it sees while it is lost and where it is then, each with the periods since the frame before."""
    dark = replace(views[0], image=np.zeros_like(views[0].image))
    for at in (5, 20, 35, 50, 65):
        there = [(1.0, view) for view in views[at : at + 12]]
        yield "kidnapped", [], there
        yield "blinded for 5 s", [(1.0, dark)] * 50, there
        yield "9 of 10 frames dropped", [], [(10.0, view) for view in views[at % 20 : MAPPED - 2 : 10]]
        yield "paused for 30 s", [], [(300.0, views[at]), *there[1:]]


def lost(
    mapper: Mapper, views: list[SimulatedView], unseen: list[tuple[float, SimulatedView]], there: list[tuple[float, SimulatedView]]
) -> tuple[float, float, float]:
    """Frames until it is found, the largest error (m), seconds a search."""
    stamp, truth = 0, {}

    def show(periods: float, view: SimulatedView) -> MapUpdate:
        nonlocal stamp
        stamp += int(periods * PERIOD)
        truth[stamp] = view.pose[:3, 3]
        return mapper.add(Frame(stamp, view.image, view.camera))

    for view in views[:MAPPED]:
        show(1.0, view)
    for periods, view in unseen:
        show(periods, view)
    updates = [show(periods, view) for periods, view in there]
    found = next((n for n, update in enumerate(updates) if update.state is TrackingState.TRACKING), len(updates))
    keyframes = mapper.keyframes
    to_room = procrustes(np.stack([k.pose[:3, 3] for k in keyframes]), np.stack([truth[k.stamp] for k in keyframes]))
    off = [np.linalg.norm(to_room.apply(u.pose[:3, 3]) - truth[u.frame.stamp]) for u in updates if u.pose is not None]
    spent = [u.seconds["relocalise"] for u in updates if "relocalise" in u.seconds]
    return found, float(max(off, default=np.nan)), float(np.median(spent)) if spent else np.nan


def room(views: list[SimulatedView] | None = None) -> Iterator[Row]:
    views, config = views or list(circle_sequence(110, 160, 120)), with_settings(MapperConfig(), SMALL)
    results: dict[str, list[tuple[float, float, float]]] = {}
    for name, unseen, there in ways_to_be_lost(views):
        results.setdefault(name, []).append(lost(Mapper(config, SimulatedEstimator(views, size=160, noise=0.01)), views, unseen, there))
    for name, rows in results.items():
        found, off, spent = np.array(rows).T
        what = f"{name}, {len(rows)} times: frames of a mapped place until it is found"
        most = f"{found.max() + 1:.0f} at most, {100 * off.max():.1f} cm off, a search {1000 * np.nanmedian(spent):.0f} ms"
        yield Row(what, most, "within 10", bool(found.max() < 10))


def parts(views: list[SimulatedView], orders: int = 5) -> Row:
    """The first part, then the others in random orders; each shares its last pictures with the next one's first."""
    dark, config = replace(views[0], image=np.zeros_like(views[0].image)), with_settings(MapperConfig(), SMALL)
    bounds, rows = np.linspace(0, len(views), PARTS + 1).round().astype(int), []
    for seed in range(orders):
        order = [0, *(1 + np.random.default_rng(seed).permutation(PARTS - 1))]
        mapper, stamp, truth, most = Mapper(config, SimulatedEstimator(views, size=160, noise=0.01)), 0, {}, 0
        for part in order:
            shown = [views[n % len(views)] for n in range(bounds[part], bounds[part + 1] + SHARED)]
            for view in [*([dark] * 31 if stamp else []), *shown]:
                stamp += PERIOD
                truth[stamp] = view.pose[:3, 3]
                mapper.add(Frame(stamp, view.image, view.camera))
            most = max(most, len(mapper.pieces))
        found = mapper.trajectory()
        mine, true = np.stack([pose[:3, 3] for _, pose in found]), np.stack([truth[t] for t, _ in found])
        off = np.linalg.norm(procrustes(mine, true).apply(mine) - true, axis=1)
        rows.append((len(mapper.pieces), most, len(found) / (len(views) + PARTS * SHARED), np.sqrt((off**2).mean()), off.max()))
    left, most, share, rms, off = np.array(rows).T
    what = f"a round in {PARTS} parts, {orders} orders: pieces that are left over"
    poses = f"poses of {100 * share.min():.0f} to {100 * share.max():.0f} % of the frames"
    off_by = f"{100 * rms.min():.1f} to {100 * rms.max():.1f} cm rms, at most {100 * off.max():.1f} cm off"
    return Row(what, f"{left.max():.0f} of up to {most.max():.0f}, {poses}, {off_by}", "0", bool(left.max() == 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--doors", type=int, default=1000)
    arguments = parser.parse_args()
    print(doors(arguments.doors), flush=True)
    views = list(circle_sequence(110, 160, 120))
    for row in room(views):
        print(row, flush=True)
    print(parts(views), flush=True)


if __name__ == "__main__":
    main()
