"""What generated pairs cost: `python bench/scenes.py [--device auto] [--sizes 128x96 224x160] [--pairs 16] [--kinds all room terrain]`.

Pairs a second for each size, kind and way (plain or compiled), in one run, interleaved; the median batch, after two that warm up. Seconds
are those of the clock, and on a CPU those that its cores worked too, since a machine may be shared.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

import torch

from dust3r_ros.training.scenes import GeneratedPairs, PairsConfig, SceneConfig
from dust3r_ros.training.scenes.config import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--sizes", nargs="+", default=("128x96", "224x160"))
    parser.add_argument("--pairs", type=int, default=None, help="of a batch; default: 16 on a CPU, 256 on a GPU")
    parser.add_argument("--pairs-per-scene", nargs="+", type=int, default=(2,))
    parser.add_argument("--kinds", nargs="+", default=("all",), choices=("all", *KINDS))
    parser.add_argument("--ways", nargs="+", default=("plain", "compiled"), choices=("plain", "compiled"))
    parser.add_argument("--threads", type=int, default=None, help="of the CPU; default: all")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    if options.threads:
        torch.set_num_threads(options.threads)
    where = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    )
    print(f"{where}; torch {torch.__version__}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    sources = {}
    for size in options.sizes:
        for kind in options.kinds:
            for shared in options.pairs_per_scene:
                for way in options.ways:
                    sources[size, kind, shared, way] = _source(options, device, size, kind, shared, way)
    times: dict[tuple[str, str, int, str], list[tuple[float, float]]] = {key: [] for key in sources}
    for step in range(2 + options.repeat):
        for key, source in sources.items():
            spent = _timed(source, step)
            if step >= 2:
                times[key].append(spent)
    print(f"{'size':>9} {'kind':>9} {'pairs a scene':>14} {'way':>9} {'pairs/s':>9} {'pairs/s of a core':>18}")
    for key, spent in times.items():
        pairs = sources[key].config.pairs
        clock, worked = (statistics.median(values) for values in zip(*spent, strict=True))
        per_core = f"{pairs / worked:18.1f}" if device == "cpu" else f"{'-':>18}"
        print(f"{key[0]:>9} {key[1]:>9} {key[2]:>14} {key[3]:>9} {pairs / clock:9.1f} {per_core}", flush=True)


def _source(options: argparse.Namespace, device: str, size: str, kind: str, shared: int, way: str) -> GeneratedPairs:
    width, height = map(int, size.split("x"))
    pairs = options.pairs or (256 if device == "cuda" else 16)
    scene = SceneConfig() if kind == "all" else SceneConfig(weights={kind: 1.0})
    return GeneratedPairs(PairsConfig(width, height, pairs, shared, scene=scene, compile=way == "compiled"), device=device)


def _timed(source: GeneratedPairs, step: int) -> tuple[float, float]:
    """Seconds of the clock and of all cores."""
    if source.device.type == "cuda":
        torch.cuda.synchronize()
    clock, worked = time.perf_counter(), time.process_time()
    source.batch(step)
    if source.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - clock, time.process_time() - worked


if __name__ == "__main__":
    main()
