"""A simulated hour: 10,000 keyframes through the whole Mapper, its memory and its time at every thousand: `python bench/hour.py`.

`rounds`: a robot that patrols a ring of corridors, so that every keyframe has been seen before and loops close all the time. `out`: one
that goes straight on for kilometres and never comes back, so that the map only grows. The estimator is the simulated one with 1 % noise,
so that what is measured is the Mapper: pictures of 96x72, one keyframe in 0.36 s.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from goal_table import Row

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
from measured import resident
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.mapping import Frame, Mapper, MapperConfig
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.simulation import SimulatedView, identical_doors_sequence, ring_sequence

WIDTH, HEIGHT = 96, 72
PERIOD = 360_000_000  # ns between keyframes: 10,000 in an hour
ROUND = 160  # views of a round of 37 m
STEPS = 8  # views a door, of an endless row of them
FLAT = 10.0  # MB in 1000 keyframes: poses and descriptors, which stay
SLOWER = 1.15  # times as long
SETTINGS = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}


class Newest(SimulatedEstimator):
    """Knows the newest views alone: of a way that never comes back no other is asked for."""

    def __init__(self, views: Sequence[SimulatedView], **errors: Any) -> None:
        super().__init__(views, **errors)

    def show(self, view: SimulatedView) -> None:
        self._views = {view.image.tobytes(): view}


def rounds(keyframes: int) -> tuple[Iterator[SimulatedView], SimulatedEstimator]:
    views = list(ring_sequence(ROUND, WIDTH, HEIGHT))
    return (views[n % ROUND] for n in range(keyframes)), SimulatedEstimator(views, size=WIDTH, noise=0.01)


def out(keyframes: int) -> tuple[Iterator[SimulatedView], SimulatedEstimator]:
    sequence = identical_doors_sequence(keyframes, WIDTH, HEIGHT, steps=STEPS)
    estimator = Newest([sequence[0]], size=WIDTH, noise=0.01)

    def shown() -> Iterator[SimulatedView]:
        for n in range(keyframes):
            view = sequence[n]
            estimator.show(view)
            yield view

    return shown(), estimator


WAYS = {"rounds": rounds, "out": out}


@dataclass(frozen=True)
class Stretch:
    """What `every` keyframes took."""

    keyframes: int  # there were at its end
    resident: float  # MB, then
    milliseconds: float  # of processor time a keyframe, mean


def drive(way: str, keyframes: int, every: int, settings: dict[str, Any], background: bool) -> list[Stretch]:
    views, estimator = WAYS[way](keyframes)
    loops = {"alignment.loops": way == "rounds"}
    mapper = Mapper(with_settings(MapperConfig(), {**SETTINGS, **loops, **settings}), estimator, background=background)
    spent: list[float] = []
    stages: dict[str, float] = {}
    closed = lost = 0
    stretches: list[Stretch] = []
    print(f"{way}: keyframes, resident MB, CPU ms a keyframe (median, 95th percentile, mean), loops, map points, ms a stage")
    for n, view in enumerate(views, start=1):
        started = time.process_time()
        update = mapper.add(Frame(n * PERIOD, view.image, view.camera))
        spent.append(time.process_time() - started)
        closed += len(update.loops)
        lost += update.pose is None
        for stage, seconds in update.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
        if n % every == 0:
            median, slow = 1e3 * np.percentile(spent, [50, 95])
            parts = ", ".join(f"{stage} {1e3 * seconds / every:.0f}" for stage, seconds in stages.items())
            print(
                f"{len(mapper.keyframe_map.poses)}, {resident() / 1e6:.0f}, {median:.0f}, {slow:.0f}, {1e3 * np.mean(spent):.0f}, "
                f"{closed}, {len(mapper.keyframe_map._points.past):,}, {parts}",
                flush=True,
            )
            stretches.append(Stretch(len(mapper.keyframe_map.poses), resident() / 1e6, 1e3 * float(np.mean(spent))))
            spent, stages = [], {}
    print(f"{way}: {lost} of {keyframes} frames had no pose")
    return stretches


def rows(way: str, stretches: Sequence[Stretch]) -> list[Row]:
    """The first three tenths are the warm-up: the window, the caches and the map fill."""
    after = list(stretches[3 * len(stretches) // 10 :])
    first, last = after[0], after[-1]
    grown = (last.resident - first.resident) / max(last.keyframes - first.keyframes, 1) * 1000
    slower = last.milliseconds / first.milliseconds
    what = f"{way}, {last.keyframes} keyframes"
    return [
        Row(f"{what}: resident memory at the end", f"{last.resident:.0f} MB", "under 2 GB", last.resident < 2000),
        Row(f"{what}: it grew after the warm-up", f"{grown:.1f} MB in 1000 keyframes", f"flat: under {FLAT:g}", grown < FLAT),
        Row(
            f"{what}: processor time a keyframe, of what it was",
            f"{100 * slower:.0f} % ({last.milliseconds:.0f} ms)",
            "no slowing",
            slower < SLOWER,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", choices=[[], *WAYS], default=list(WAYS))
    parser.add_argument("--keyframes", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=1000, help="keyframes between two lines")
    parser.add_argument("--background", action="store_true", help="the whole graph on another thread, as in the node")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the map, as a number")
    arguments = parser.parse_args()
    settings = {name: float(value) if "." in value else int(value) for name, value in (item.split("=") for item in arguments.set)}
    for way in arguments.ways:
        for row in rows(way, drive(way, arguments.keyframes, arguments.every, settings, arguments.background)):
            print(row)


if __name__ == "__main__":
    main()
