"""Weights of a published architecture that every implementation can make for itself: random numbers seeded by each parameter's name."""

from __future__ import annotations

import re
import zlib

import numpy as np
import torch

from dust3r_ros.network import TwoViewNetwork

LAST_POINTS = re.compile(r"dpt\.head\.4\.weight$|downstream_head[12]\.proj\.weight$")
TRANSPOSED = re.compile(r"act_postprocess\.[01]\.1\.weight$")


def weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weight that every implementation makes for this key."""
    key = re.sub(r"scratch\.layer_rn\.(\d)", lambda m: f"scratch.layer{int(m[1]) + 1}_rn", key)
    x = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(size=shape)
    if key.endswith("bias"):
        x *= 0.02
    elif len(shape) == 1:
        x = 1 + 0.02 * x
    else:
        x /= np.sqrt(shape[0] if TRANSPOSED.search(key) else np.prod(shape[1:]))
        x *= 0.1 if LAST_POINTS.search(key) else 1.0
    return torch.from_numpy(x.astype(np.float32))


def regenerated(name: str) -> TwoViewNetwork:
    """The published architecture with these weights: what it says of a scene is nonsense, but it is always the same."""
    with torch.device("meta"):
        network = TwoViewNetwork.from_config(name)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            parameter.copy_(weight(key, tuple(parameter.shape)))
    return network.eval()
