"""Our alignment beside plain Adam over everything, in one run:

    python bench/alignment.py [--problems NAME ...] [--steps 300 3000] [--rates 0.01] [--quick] [--output FOLDER]

Simulated pairs of known truth (`alignment_problems.py`). Time: from predictions to poses, focal lengths, depths and similarities; ours
is the median of nine (of three where one takes a second, one where it takes a minute), after one on a few keyframes; Adam's once.
Objective: over all pixels of the pairs that are right, by `dust3r_ros.alignment.objective`; a pair that a way left out is fitted onto its
scene first. ATE: RMSE of positions after Sim(3), also as a share of the path's extent. Focal error: the largest. Memory: the most resident
memory above that before the call, in a process of its own. Writes `results.jsonl` and `convergence.png` (objective above the best that
any way found) to the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from alignment_problems import PROBLEMS, BuiltProblem, Problem
from convergence_plot import convergence_plot
from measured import Failure, available_bytes, in_own_process, peak_above
from plain_adam import RATE, Scene, every_similarity, plain_adam

from dust3r_ros.alignment import align, objective, world_points
from dust3r_ros.geometry import procrustes

ADAM_KEYFRAMES = 40  # the most
QUICK = 1.0  # seconds: nine repetitions below
SLOW = 60.0  # seconds; what takes longer is timed once
HEADER = (
    "| problem | keyframes | size | pairs | way | time | times Adam's 300 | objective | ATE | of the extent | focal error | memory "
    "| iterations | dropped |\n|" + "---|" * 14
)


@dataclass
class Row:
    problem: str
    keyframes: int
    width: int
    height: int
    pairs: int
    way: str
    seconds: float = float("nan")
    faster_than_adam_300: float | None = None
    objective: float = float("nan")
    ate_cm: float = float("nan")
    ate_percent: float = float("nan")
    focal_error_percent: float = float("nan")
    memory_mb: float = float("nan")
    iterations: int | None = None
    dropped: str = ""  # right and wrong predictions that the way did without
    skipped: str = ""
    history: list[tuple[float, float]] = field(default_factory=list)  # seconds, objective

    def markdown(self) -> str:
        cells = [self.problem, str(self.keyframes), f"{self.width}x{self.height}", str(self.pairs), self.way]
        if self.skipped:
            return f"| {' | '.join(cells)} | {self.skipped} |" + " |" * 8
        cells += [f"{self.seconds:.3g} s", "" if self.faster_than_adam_300 is None else f"{self.faster_than_adam_300:.0f}"]
        cells += [f"{self.objective:.5f}", f"{self.ate_cm:.2f} cm", f"{self.ate_percent:.2f} %", f"{self.focal_error_percent:.2f} %"]
        cells += [f"{self.memory_mb:.0f} MB", "" if self.iterations is None else str(self.iterations), self.dropped]
        return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS), metavar="NAME", help=", ".join(PROBLEMS).replace("%", "%%")
    )
    parser.add_argument("--steps", type=int, nargs="*", default=[300], help="of Adam; none: ours alone")
    parser.add_argument("--rates", type=float, nargs="+", default=[RATE], help="Adam's learning rates")
    parser.add_argument("--quick", action="store_true", help="circle-8 alone, 300 steps")
    parser.add_argument("--output", type=Path, default=Path("build/alignment_bench"))
    options = parser.parse_args()
    if options.quick:
        options.problems, options.steps = ["circle-8"], [300]
    options.output.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # OpenMP's threads do not live through a fork: they are started in the children only
    rows: list[Row] = []
    print(HEADER, flush=True)
    with (options.output / "results.jsonl").open("w") as lines:
        for name in options.problems:
            for row in compare(PROBLEMS[name], options.steps, options.rates, threads):
                rows.append(row)
                print(row.markdown(), flush=True)
                lines.write(json.dumps({**asdict(row), "load": os.getloadavg()[0]}) + "\n")
                lines.flush()
    convergence_plot([row for row in rows if not row.skipped], options.output / "convergence.png")


def compare(problem: Problem, steps: Sequence[int], rates: Sequence[float], threads: int) -> list[Row]:
    def row(way: str) -> Row:
        return Row(problem.name, problem.keyframes, *problem.size, problem.pairs(), way)

    needed, free = 1.6 * problem.bytes() + 1e9, available_bytes()
    if needed > free:
        skipped = row("ours")
        skipped.skipped = f"skipped: {needed / 1e9:.1f} GB wanted, {free / 1e9:.1f} GB free"
        return [skipped]
    built = problem.build()
    rows = []
    ways: list[tuple[str, Callable[[BuiltProblem], Measured]]] = [("ours", run_ours)]
    if problem.keyframes <= ADAM_KEYFRAMES:
        ways += [(adam_name(n, rate), partial(run_adam, steps=n, rate=rate, threads=threads)) for n in steps for rate in rates]
    for way, run in ways:
        found = in_own_process(run, built)
        rows.append(row(way))
        rows[-1].pairs = len(built.predictions)
        if isinstance(found, Failure):
            rows[-1].skipped = f"failed: {found.reason}"
        else:
            judge(rows[-1], found, built)
    adam = next((r.seconds for r in rows if r.way == adam_name(300, RATE) and not r.skipped), None)
    for each in rows:
        each.faster_than_adam_300 = None if adam is None or each.skipped else adam / each.seconds
    return rows


def adam_name(steps: int, rate: float) -> str:
    return f"Adam, {steps}" + (f" at {rate:g}" if rate != RATE else "")


@dataclass
class Measured:
    """What a child process sends back: no depths, they have done their part in the objective."""

    seconds: float
    objective: float
    poses: np.ndarray
    focals: np.ndarray
    memory: float  # bytes
    images: list[int]
    iterations: int | None = None
    dropped: str = ""
    history: list[tuple[float, float]] = field(default_factory=list)


def run_ours(built: BuiltProblem) -> Measured:
    few = [p for p in built.predictions if max(p.i, p.j) < 4]
    align(few, principal_points=built.centres)
    with peak_above() as memory:
        began = time.perf_counter()
        found = align(built.predictions, principal_points=built.centres)
        times = [time.perf_counter() - began]
    for _ in range(8 if times[0] < QUICK else 2 if times[0] < SLOW else 0):
        began = time.perf_counter()
        align(built.predictions, principal_points=built.centres)
        times.append(time.perf_counter() - began)
    similarities = every_similarity(built.predictions, found, built.centres)
    depths = dict(zip(found.images, found.depths, strict=True))
    value = ruler(built, depths, found.poses, found.focals, similarities, list(found.images))
    out = [k for k, s in enumerate(found.pair_similarities) if s is None or k in getattr(found, "dropped", {})]
    wrong = built.right.count(False)
    dropped = f"{sum(not built.right[k] for k in out)} of {wrong} wrong, {sum(built.right[k] for k in out)} right" if wrong or out else ""
    history = [(float(entry.seconds), float(entry.objective)) for entry in getattr(found, "history", ())]
    iterations = len(history) or None
    return Measured(
        statistics.median(times), value, found.poses, found.focals, memory.bytes, list(found.images), iterations, dropped, history
    )


def run_adam(built: BuiltProblem, steps: int, rate: float, threads: int) -> Measured:
    plain_adam([p for p in built.predictions if max(p.i, p.j) < 3], built.centres, 2)
    torch.set_num_threads(threads)
    with peak_above() as memory:
        began = time.perf_counter()
        found: Scene = plain_adam(built.predictions, built.centres, steps, rate)
        seconds = time.perf_counter() - began
    images = list(range(len(found.poses)))
    value = ruler(built, dict(enumerate(found.depths)), found.poses, found.focals, found.similarities, images)
    return Measured(seconds, value, found.poses, found.focals, memory.bytes, images, steps, "", found.history)


def ruler(built: BuiltProblem, depths, poses, focals, similarities, images: list[int]) -> float:
    points = {n: world_points(depths[n], pose, float(focal), built.centre) for n, pose, focal in zip(images, poses, focals, strict=True)}
    judged = [k for k, p in enumerate(built.predictions) if built.right[k] and p.i in points and p.j in points]
    return objective([built.predictions[k] for k in judged], points, [similarities[k] for k in judged])


def judge(row: Row, found: Measured, built: BuiltProblem) -> None:
    truth, positions = built.poses[found.images, :3, 3], found.poses[:, :3, 3]
    moved = procrustes(positions, truth).apply(positions)
    error = float(np.sqrt(((moved - truth) ** 2).sum(1).mean()))
    extent = float(np.linalg.norm(truth[:, None] - truth[None], axis=-1).max())
    row.seconds, row.objective, row.memory_mb = found.seconds, found.objective, found.memory / 1e6
    row.ate_cm, row.ate_percent = 100 * error, 100 * error / extent
    row.focal_error_percent = 100 * float(np.abs(found.focals / built.focal - 1).max())
    row.iterations, row.history = found.iterations, found.history
    row.dropped = found.dropped
    if len(found.images) < row.keyframes:
        row.dropped += f" {row.keyframes - len(found.images)} keyframes unplaced"


if __name__ == "__main__":
    main()
