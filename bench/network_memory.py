"""Memory over many keyframes: `python bench/network_memory.py [--keyframes 10000]`.

A window of 10 slides over keyframes of a small network with random weights; each is paired with the three before it, both ways. Resident
memory and time per keyframe are printed as they go: both must stay flat.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from dust3r_ros.estimators import Tokens
from dust3r_ros.estimators.two_view import NetworkEstimator
from dust3r_ros.estimators.two_view.hardware import choose_hardware
from dust3r_ros.geometry import Camera
from dust3r_ros.network import NetworkConfig, TwoViewNetwork

WINDOW, PAIRED = 10, 3
CONFIG = NetworkConfig(
    encoder_width=192, encoder_depth=2, encoder_heads=3, decoder_width=192, decoder_depth=2, decoder_heads=3, head="linear", image_size=64
)


def resident() -> float:
    """MB"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keyframes", type=int, default=10_000)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.manual_seed(0)
    estimator = NetworkEstimator(TwoViewNetwork(CONFIG), "small", hardware=choose_hardware(options.device))
    camera = Camera.from_fov(80, 60, 60)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(50)]
    window: dict[int, Tokens] = {}
    step = max(1, options.keyframes // 10)
    print("| keyframes | resident | tokens on the device | a keyframe |\n|---|---|---|---|")
    started = time.perf_counter()
    for index in range(options.keyframes):
        window[index] = estimator.encode(images[index % len(images)], camera)
        if len(window) > WINDOW:
            del window[min(window)]
        others = [other for other in window if index - PAIRED <= other < index]
        estimator.estimate(window, [pair for other in others for pair in ((other, index), (index, other))])
        if (index + 1) % step == 0 or index + 1 == 100:
            each = (time.perf_counter() - started) / (index + 1)
            print(
                f"| {index + 1} | {resident():.0f} MB | {estimator.runner.store.device_bytes / 1e6:.3f} MB | {1e3 * each:.2f} ms |",
                flush=True,
            )


if __name__ == "__main__":
    main()
