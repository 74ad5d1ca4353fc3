"""What the networks cost: `python bench/network.py [--model dust3r_512_dpt] [--sizes 512x384] [--write docs/benchmarks.md]`.

Ours beside the plain way, in one run, interleaved, as ratios. The plain way is the same network in float32, one pair at a time, both images
of every pair encoded anew, all heads run: what the published inference code does by its description. Ours is `NetworkEstimator`, from the
camera's 8-bit picture to predictions in host memory. Weights are random: they change no time.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from dust3r_ros.estimators.two_view import NetworkEstimator
from dust3r_ros.estimators.two_view.hardware import choose_hardware
from dust3r_ros.estimators.two_view.runner import RunnerOptions
from dust3r_ros.geometry import Camera
from dust3r_ros.network import ImageTokens, NetworkConfig, TwoViewNetwork

WINDOW = 3
SIZES = ("224x224", "512x288", "512x384")


@dataclass
class Row:
    """Seconds and bytes of one way at one size."""

    size: str
    way: str
    encode: float
    decode: float  # both decoders of one directed pair
    heads: float  # both heads of one directed pair
    frame: float  # a new frame against the last keyframe: one directed pair
    keyframe: float  # a new keyframe at window 3: six directed pairs
    memory: int  # bytes at the most during the keyframe: weights, tokens and work
    gflop: float  # of the keyframe
    ratio: float = 1.0  # the plain way's keyframe time over this one's
    share: float = 0.0  # of the measured matrix peak, over the keyframe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="dust3r_512_dpt")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--precisions", nargs="+", default=None, help="default: float32 and the best one here")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--write", type=Path, help="the page whose section for this machine is replaced")
    options = parser.parse_args()
    best = choose_hardware(options.device)
    precisions = options.precisions or list(dict.fromkeys(["float32", str(best.precision).removeprefix("torch.")]))
    rows = [row for size in options.sizes for row in measure(options, size, precisions)]
    print(json.dumps([asdict(row) for row in rows]))
    text = section(options, rows)
    print(text)
    if options.write:
        replace_section(options.write, text)


def measure(options: argparse.Namespace, size: str, precisions: list[str]) -> list[Row]:
    """The plain way and ours at every precision, interleaved, so that what else the machine does falls on all alike."""
    width, height = map(int, size.split("x"))
    ways: list[Plain | Ours] = []
    network = random_network(options.model)
    ways.append(Plain(network, options.device, width, height))
    ways += [Ours(network, options, precision, width, height) for precision in precisions]
    times: list[dict[str, list[float]]] = [{} for _ in ways]
    for round_ in range(options.repeat + 1):
        for way, found in zip(ways, times, strict=True):
            for name, stage in way.stages().items():
                seconds = timed(stage, way.device)
                if round_:  # the first one warms up
                    found.setdefault(name, []).append(seconds)
    rows = []
    for way, found in zip(ways, times, strict=True):
        median = {name: statistics.median(values) for name, values in found.items()}
        rows.append(Row(size, way.name, **median, memory=way.memory(), gflop=way.gflop))
    for row, way in zip(rows, ways, strict=True):
        row.ratio = rows[0].keyframe / row.keyframe
        row.share = row.gflop / row.keyframe / matrix_peak(way.device, way.precision)
    return rows


class Plain:
    name = "plain, float32"
    precision = torch.float32

    def __init__(self, network: TwoViewNetwork, device: str, width: int, height: int) -> None:
        self.device = choose_hardware(device).device
        before = memory_now(self.device)
        self.network = clone(network).to(self.device).eval()
        self.images = [torch.rand(1, 3, height, width, device=self.device) * 2 - 1 for _ in range(WINDOW + 1)]
        with torch.inference_mode():
            self.tokens = [self.network.encode(image) for image in self.images[:2]]
            self.levels = self.network.decode_levels(*self.tokens)
        work = work_of(network.config, width, height)
        self.gflop = 2 * WINDOW * (2 * work["encode"] + work["decode"] + work["heads"] + work["details"])
        self._before = before

    def stages(self) -> dict[str, Callable[[], object]]:
        net, grid = self.network, self.tokens[0].grid
        return {
            "encode": lambda: net.encode(self.images[0]),
            "decode": lambda: net.decode_levels(*self.tokens),
            "heads": lambda: (net.downstream_head1(self.levels[0], grid), net.downstream_head2(self.levels[1], grid)),
            "frame": lambda: net(self.images[0], self.images[1]),
            "keyframe": self._keyframe,
        }

    def _keyframe(self) -> None:
        for old in range(WINDOW):
            self.network(self.images[old], self.images[WINDOW])
            self.network(self.images[WINDOW], self.images[old])

    def memory(self) -> int:
        return peak_memory(self.device, self._before, weights_of(self.network), self._keyframe)


class Ours:
    def __init__(self, network: TwoViewNetwork, options: argparse.Namespace, precision: str, width: int, height: int) -> None:
        hardware = choose_hardware(options.device, precision)
        self.name, self.device, self.precision = f"ours, {precision}", hardware.device, hardware.precision
        self._before = memory_now(self.device)
        self.estimator = NetworkEstimator(
            clone(network, width == height), "bench", max(width, height), hardware, RunnerOptions(compile=options.compile)
        )
        rng = np.random.default_rng(0)
        scale = 1.25  # the camera's picture is larger than the network's
        self.camera = Camera.from_fov(round(width * scale), round(height * scale), 60)
        self.images: list[NDArray[np.uint8]] = [
            rng.integers(0, 256, (self.camera.height, self.camera.width, 3), dtype=np.uint8) for _ in range(WINDOW + 1)
        ]
        self.views = {key: self.estimator.encode(self.images[key], self.camera) for key in range(WINDOW)}
        assert self.views[0].image.shape[1::-1] == (width, height), self.views[0].image.shape
        self._keyframe()  # old keyframes' details are made here, as they would have been before
        work = work_of(self.estimator.config, width, height)
        self.gflop = work["encode"] + work["details"] + 2 * WINDOW * (work["decode"] + work["heads"])
        self.network = net = self.estimator.network
        tokens = [self.views[key].features for key in (0, 1)]
        self._tokens = [ImageTokens(t.values, t.grid, tuple(t.details)) for t in tokens]
        with torch.inference_mode():
            self._levels = net.decode_levels(*self._tokens)

    def stages(self) -> dict[str, Callable[[], object]]:
        net, grid = self.estimator.network, self._tokens[0].grid
        heads = (net.downstream_head1, net.downstream_head2)
        return {
            "encode": lambda: self.estimator.encode(self.images[0], self.camera),
            "decode": lambda: net.decode_levels(*self._tokens),
            "heads": lambda: [
                head(levels, grid, t.details[s]) for s, (head, levels, t) in enumerate(zip(heads, self._levels, self._tokens, strict=True))
            ],
            "frame": self._frame,
            "keyframe": self._keyframe,
        }

    def _frame(self) -> None:
        views = {0: self.views[0], 1: self.estimator.encode(self.images[WINDOW], self.camera)}
        self.estimator.estimate(views, [(0, 1)])

    def _keyframe(self) -> None:
        views = {**self.views, WINDOW: self.estimator.encode(self.images[WINDOW], self.camera)}
        self.estimator.estimate(views, [pair for old in range(WINDOW) for pair in ((old, WINDOW), (WINDOW, old))])

    def memory(self) -> int:
        return peak_memory(self.device, self._before, weights_of(self.network), self._keyframe)


def random_network(model: str) -> TwoViewNetwork:
    """Weights from one small pool of random numbers: a real initialisation takes half a minute and changes no time."""
    with torch.device("meta"):
        network = TwoViewNetwork.from_config(model)
    network.to_empty(device="cpu")
    pool = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            values = pool.repeat(-(-parameter.numel() // len(pool)))[: parameter.numel()].view_as(parameter)
            parameter.copy_(values * (0.3 / max(1, parameter[0].numel()) ** 0.5))
    return network


def clone(network: TwoViewNetwork, square: bool = False) -> TwoViewNetwork:
    """With weights of its own; `square` for square pictures, which are else cut to 4:3."""
    with torch.device("meta"):
        copy = TwoViewNetwork(replace(network.config, square=square))
    copy.load_state_dict({key: value.clone() for key, value in network.state_dict().items()}, assign=True)
    return copy.requires_grad_(False)


@torch.inference_mode()
def timed(stage: Callable[[], object], device: torch.device) -> float:
    gc.collect()
    synchronise(device)
    started = time.perf_counter()
    stage()
    synchronise(device)
    return time.perf_counter() - started


def work_of(config: NetworkConfig, width: int, height: int) -> dict[str, float]:
    """GFLOP of an encoded image, and of a directed pair's decoders, heads, and the part of the heads that an image needs once."""
    with torch.device("meta"), torch.inference_mode():
        network = TwoViewNetwork(config)
        image = torch.zeros(1, 3, height, width)

        def count(run: Callable[[], Any]) -> tuple[float, Any]:
            with FlopCounterMode(display=False) as counter:
                result = run()
            return counter.get_total_flops() / 1e9, result

        encode, tokens = count(lambda: network.encode(image).values)
        tokens = ImageTokens(tokens, (height // config.patch_size, width // config.patch_size))
        details, made = count(lambda: (network.detail(tokens, 0), network.detail(tokens, 1)))
        decode, levels = count(lambda: network.decode_levels(tokens, tokens))
        sides = zip((network.downstream_head1, network.downstream_head2), levels, made, strict=True)
        heads, _ = count(lambda: [head(side, tokens.grid, detail) for head, side, detail in sides])
    return {"encode": encode, "decode": decode, "heads": heads, "details": details}


def weights_of(network: TwoViewNetwork) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def memory_now(device: torch.device) -> int:
    gc.collect()
    return torch.cuda.memory_allocated() if device.type == "cuda" else _status("VmRSS")


@torch.inference_mode()
def peak_memory(device: torch.device, before: int, weights: int, run: Callable[[], None]) -> int:
    """Bytes at the most during `run`. On a CPU the growth of the resident memory (Linux) and the weights; tokens count on a GPU only."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    floor = _status("VmRSS")
    run()
    return _status("VmHWM") - floor + weights


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def matrix_peak(device: torch.device, precision: torch.dtype) -> float:
    """GFLOP/s of large matrix products here: the limit that no network passes."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(precision) for _ in range(2))
    seconds = min(timed(lambda: a @ b, device) for _ in range(8))
    return 2 * size**3 / seconds / 1e9


def section(options: argparse.Namespace, rows: list[Row]) -> str:
    gpu = torch.cuda.get_device_name() if choose_hardware(options.device).device.type == "cuda" else ""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), platform.machine()
    )
    machine = gpu or f"{cpu}, {torch.get_num_threads()} threads"
    lines = [
        f"## {options.model} on {machine}",
        f"PyTorch {torch.__version__}, Python {platform.python_version()}; medians of {options.repeat}; milliseconds.",
        "",
        "| size | way | encode | decode | heads | a frame | a keyframe | plain / this | of the peak | memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        stages = " | ".join(f"{1e3 * value:.4g}" for value in (row.encode, row.decode, row.heads, row.frame, row.keyframe))
        lines.append(f"| {row.size} | {row.way} | {stages} | {row.ratio:.2f} | {100 * row.share:.0f} % | {row.memory / 1e6:.0f} MB |")
    return "\n".join(lines) + "\n"


def replace_section(page: Path, text: str) -> None:
    """Sections begin with '## '; the one with the same heading makes place, else the new one goes to the end."""
    before = page.read_text() if page.exists() else "# Benchmarks\n"
    parts = before.split("\n## ")
    heading = text.splitlines()[0].removeprefix("## ")
    kept = [parts[0].rstrip("\n"), *(f"## {part.rstrip()}" for part in parts[1:] if part.splitlines()[0] != heading)]
    page.write_text("\n\n".join([*kept, text.rstrip()]) + "\n")


if __name__ == "__main__":
    main()
