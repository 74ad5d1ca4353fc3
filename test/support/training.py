"""Small training runs: a tiny network on planes, through the real loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dust3r_ros.network import NetworkConfig, TwoViewNetwork
from dust3r_ros.training.initialisation import fresh_network
from dust3r_ros.training.loop import Ended, Line, TrainingLoop
from dust3r_ros.training.pairs import PairSource
from dust3r_ros.training.recipe import Recipe
from dust3r_ros.training.recipe_file import recipe_of
from dust3r_ros.training.state import TrainingState, state_of_network

TINY = NetworkConfig(
    encoder_width=64, encoder_depth=2, encoder_heads=2, decoder_width=64, decoder_depth=2, decoder_heads=2, head="linear", image_size=64
)
CPU = torch.device("cpu")


def recipe_with(**sections: dict[str, Any]) -> Recipe:
    base: dict[str, dict[str, Any]] = {
        "data": {"sizes": ["64x48"], "batch": 4},
        "optimiser": {"learning_rate": 1e-3, "warm_up": 5, "ema": 0.9},
        "schedule": {"steps": 8},
        "records": {"log_every": 1, "validate_every": 0, "save_every": 1000, "save_minutes": 1000.0},
    }
    return recipe_of({**{name: {**values, **sections.pop(name, {})} for name, values in base.items()}, **sections}, "the test's recipe")


def tiny_state(recipe: Recipe, config: NetworkConfig = TINY) -> TrainingState:
    network: TwoViewNetwork = fresh_network(config, recipe.seed)
    return state_of_network(network, recipe, CPU)


def run_loop(
    recipe: Recipe,
    state: TrainingState,
    source: PairSource,
    output: Path,
    minutes: float | None = None,
    say: Callable[[Line], None] = lambda _: None,
    precision: torch.dtype = torch.float32,
) -> Ended:
    return TrainingLoop(recipe, state, source, output, precision, say=say, pictures=source).run(minutes)
