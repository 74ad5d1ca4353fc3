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
from pathlib import Path
from typing import Any

import numpy as np

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


def drive(way: str, keyframes: int, every: int, settings: dict[str, Any], background: bool) -> None:
    views, estimator = WAYS[way](keyframes)
    loops = {"alignment.loops": way == "rounds"}
    mapper = Mapper(with_settings(MapperConfig(), {**SETTINGS, **loops, **settings}), estimator, background=background)
    spent: list[float] = []
    stages: dict[str, float] = {}
    closed = lost = 0
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
            spent, stages = [], {}
    print(f"{way}: {lost} of {keyframes} frames had no pose")


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
        drive(way, arguments.keyframes, arguments.every, settings, arguments.background)


if __name__ == "__main__":
    main()
