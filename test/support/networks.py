"""Small two-view networks with random weights: the same code as the published ones, in no time. What they say of a scene is nonsense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from dust3r_ros.network import NetworkConfig, TwoViewNetwork, save_network

SMALL = NetworkConfig(
    encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=24, decoder_depth=4, decoder_heads=2, head="linear", image_size=64
)
DPT = replace(SMALL, head="dpt")
MASTER = replace(SMALL, head="catmlp+dpt", descriptor_width=6)


def small_network(config: NetworkConfig = DPT, seed: int = 0) -> TwoViewNetwork:
    torch.manual_seed(seed)
    return TwoViewNetwork(config).eval()


def small_weights(folder: Path, config: NetworkConfig = DPT) -> Path:
    """A file of weights of such a network."""
    path = folder / "small.safetensors"
    save_network(small_network(config), path, licence="none: random numbers")
    return path
