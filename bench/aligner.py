"""The online alignment over many keyframes: time of each, resident memory, the whole graph: `python bench/aligner.py [--keyframes 10000]`.

Simulated pairs (smooth noise) of a camera that goes round a square of corridors again and again, window of 10, each keyframe with the
three before it, a loop closed once a round. Every tenth of the way: time of `add` and `retire` (median, 95th percentile of the last 200),
of the whole graph's alignment, resident memory above that after the first 100 keyframes, and the trajectory error before and after.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "test"))
sys.path.insert(0, str(Path(__file__).parent))
from measured import resident
from support.pair_simulator import PairSimulator

from dust3r_ros.alignment import Aligner, SettledView
from dust3r_ros.geometry import procrustes
from dust3r_ros.simulation import ring_sequence

WINDOW, ROUND = 10, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keyframes", type=int, default=10_000)
    parser.add_argument("--size", type=int, nargs=2, default=(64, 48))
    options = parser.parse_args()
    views = PairSimulator.of(ring_sequence(ROUND, *options.size), seed=5)
    centre, focal = (views.camera.cx, views.camera.cy), views.camera.fx
    aligner, seconds = Aligner(), deque[tuple[float, float]](maxlen=200)
    first_round: dict[int, SettledView] = {}
    window: list[int] = []
    begun = 0.0
    report = {round(options.keyframes * k / 10) for k in range(1, 11)} | {100, 1000}
    print(
        "| keyframes | add, median | add, 95 % | retire | memory | whole graph | error before | after |\n|---|---|---|---|---|---|---|---|"
    )
    for k in range(options.keyframes):
        predictions = [p for d in (1, 2, 3) if k - d in window for p in both(views, k - d, k)]
        started = time.perf_counter()
        found = aligner.add(k, predictions, focal, centre)
        added = time.perf_counter() - started
        assert found is not None
        for n, view in found.items():
            if n < ROUND and view.depth is not None:
                first_round[n] = SettledView(view.depth, focal, centre)
        window.append(k)
        if k >= ROUND and k % ROUND == 5:  # the same place as in the first round
            settled = found[k].depth
            assert settled is not None
            views_of = {5: first_round[5], k: SettledView(settled, focal, centre)}
            aligner.close_loop(both(views, 5, k), views_of)
        started = time.perf_counter()
        if len(window) > WINDOW:
            aligner.retire(window.pop(0))
        seconds.append((added, time.perf_counter() - started))
        if k + 1 == 100:
            begun = resident()
        if k + 1 in report:
            times = 1e3 * np.array(seconds)
            before, started = error(aligner, views, k + 1), time.perf_counter()
            aligner.align()
            whole = time.perf_counter() - started
            print(
                f"| {k + 1} | {np.median(times[:, 0]):.1f} ms | {np.percentile(times[:, 0], 95):.1f} ms | {np.median(times[:, 1]):.1f} ms "
                f"| {(resident() - begun) / 1e6:+.1f} MB | {whole:.2f} s | {before:.1f} cm | {error(aligner, views, k + 1):.1f} cm |",
                flush=True,
            )


def both(views: PairSimulator, i: int, j: int) -> list:
    """The pairs of two keyframes, numbered as they come, seen at their places of the round."""
    from dataclasses import replace

    return [replace(views.pair(a % ROUND, b % ROUND), i=a, j=b) for a, b in ((i, j), (j, i))]


def error(aligner: Aligner, views: PairSimulator, count: int) -> float:
    """RMSE of positions after Sim(3), cm."""
    truth = np.stack([views.poses[k % ROUND][:3, 3] for k in range(count)])
    found = np.stack([aligner.positions[k] for k in range(count)])
    return 100 * float(np.sqrt(((procrustes(found, truth).apply(found) - truth) ** 2).sum(1).mean()))


if __name__ == "__main__":
    main()
