"""A package's folder of shipped files, made for a test: a small network with random weights, and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dust3r_ros.models import shipped
from dust3r_ros.network import save_network
from support.networks import SMALL, small_network

GOOD = {"held_out": {"depth_abs_rel": 0.05, "rra_15": 0.97, "rta_15": 0.9}, "motorcycle": {"depth_abs_rel": 0.1}}
POOR = {"held_out": {"depth_abs_rel": 0.4, "rra_15": 0.6, "rta_15": 0.5}, "motorcycle": {"depth_abs_rel": 0.3}}
STRAIGHT, LOST = {"ate_percent": 0.1, "depth_abs_rel": 0.2}, {"ate_percent": 7.0, "depth_abs_rel": 0.1}


def scores(**models: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    """As `evaluate --json` writes them."""
    rows = [{"model": model, "data": data, **figures} for model, sets in models.items() for data, figures in sets.items()]
    return {"format": shipped.FORMAT, "command": "dust3r_ros evaluate", "settings": {}, "rows": rows}


def ship(folder: Path, told: dict[str, Any] | None = None) -> Path:
    """The weights of a network that knows nothing, and what is said of it."""
    path = folder / shipped.WEIGHTS
    save_network(small_network(SMALL), path, torch.float16, licence="Apache-2.0")
    if told is not None:
        (folder / shipped.SCORES).write_text(json.dumps(told))
    return path
