"""What training costs: `python bench/training.py [--config FILE] [--device auto] [--steps 5] [--set key=value ...]`.

Pairs a second of the data alone, of the network's step alone (forward, backward, optimiser, average) and of both as the loop does it, in
one run, interleaved; and the share of the measured matrix peak that the step reaches. Has not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from dust3r_ros.training.inputs import InputMaker, Inputs
from dust3r_ros.training.loop import is_compiled
from dust3r_ros.training.objectives import PointmapObjective
from dust3r_ros.training.prefetch import Prefetch
from dust3r_ros.training.recipe import Recipe
from dust3r_ros.training.recipe_file import read_recipe
from dust3r_ros.training.run import prepared
from dust3r_ros.training.sources import training_source
from dust3r_ros.training.state import TrainingState, fresh_state

BACKWARD = 2  # the backward pass multiplies twice as much as the forward pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path(__file__).parents[1] / "config/train/dust3r_nano_cpu.yaml")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=5, help="measured, after one that warms up")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="one setting of the recipe, as key=value")
    options = parser.parse_args()
    recipe = read_recipe(options.config, [*options.changes, f"hardware.device={options.device}"])
    measure(recipe, options.steps)


def measure(recipe: Recipe, steps: int) -> None:
    device, precision = prepared(recipe.hardware)
    maker = InputMaker(recipe, training_source(recipe, device))
    prefetch = Prefetch(maker, device, recipe.hardware.prefetch, recipe.data.source == "rgbd")
    state = fresh_state(recipe, device)
    plain = PointmapObjective(state.network, recipe.objective, precision)
    objective = torch.compile(plain, dynamic=False) if is_compiled(recipe, state.network, "pointmaps") else plain
    held = maker.make(0, 0, "pointmaps")
    ways: dict[str, Callable[[int], None]] = {
        "data alone": lambda at: _use(maker.make(at, 0, "pointmaps")),
        "network's step alone": lambda _: _step(objective, state, held),
        "both": lambda at: _step(objective, state, prefetch.take((at, 0, "pointmaps"), (at + 1, 0, "pointmaps"))),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for at in range(steps + 1):
        for name, way in ways.items():
            seconds = _timed(lambda way=way, at=at: way(at), device)
            if at:
                times[name].append(seconds)
    prefetch.close()
    batch = recipe.data.batch
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{recipe.network.model} on {name}, {precision}, {batch} pairs a step of {held.images_1.shape[3]}x{held.images_1.shape[2]}")
    for way, found in times.items():
        print(f"{way:22} {batch / statistics.median(found):10.1f} pairs/s")
    work = _work(plain, held)
    peak = _matrix_peak(device, precision)
    rate = work / statistics.median(times["network's step alone"])
    print(f"the step's products: {work / 1e9:.1f} GFLOP, {100 * rate / peak:.0f} % of the matrix peak of {peak / 1e12:.3g} TFLOP/s")


def _step(objective: Callable[[Inputs], torch.Tensor], state: TrainingState, inputs: Inputs) -> None:
    objective(inputs)[0].backward()
    state.optimisation.step(1e-6, 0)


def _use(inputs: Inputs) -> None:
    del inputs


def _timed(run: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _work(objective: PointmapObjective, inputs: Inputs) -> float:
    """FLOP of matrix products and convolutions of a step."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        objective(inputs)
    return float((1 + BACKWARD) * counter.get_total_flops())


def _matrix_peak(device: torch.device, precision: torch.dtype) -> float:
    """FLOP/s of large matrix products here: the limit that no network passes."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(precision) for _ in range(2))

    def product() -> None:
        a @ b

    return float(2 * size**3 / min(_timed(product, device) for _ in range(8)))


if __name__ == "__main__":
    main()
