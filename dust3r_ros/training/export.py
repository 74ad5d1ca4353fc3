"""The averaged weights as a file that everything else of this package loads."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from dust3r_ros.io.atomic import atomic_file
from dust3r_ros.network import TwoViewNetwork, save_network
from dust3r_ros.network.config_words import config_of_words
from dust3r_ros.training.checkpoints import TrainingCheckpoint
from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.optimisation import copied
from dust3r_ros.training.recipe_file import recipe_of
from dust3r_ros.training.schedule import Schedule

LICENCE = "Apache-2.0"


def export_weights(network: TwoViewNetwork, path: Path, dtype: torch.dtype = torch.float16, is_one_decoder: bool = False) -> None:
    """Write them, licence Apache-2.0 said. `is_one_decoder`: only the first is trained yet, the second becomes its copy.

    Raises TrainingError for weights that `dtype` cannot hold, OutputError where nothing can be written.
    """
    if is_one_decoder:
        network = copy.deepcopy(network)
        copied(zip(network.dec_blocks.parameters(), network.dec_blocks2.parameters(), strict=True))
    for name, value in network.named_parameters():
        if not bool(torch.isfinite(value.to(dtype)).all()):
            raise TrainingError(f"weights '{name}' do not fit {dtype}: export them as float32, or from an earlier checkpoint")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        named = temporary.with_name(f"{temporary.name}.safetensors")  # by which readers know it
        try:
            save_network(network, named, dtype, LICENCE)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def export_checkpoint(checkpoint: TrainingCheckpoint, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """The same of a run's checkpoint."""
    network = TwoViewNetwork(config_of_words(checkpoint.network, {}, "the checkpoint"))
    average = checkpoint.under("average")
    copied((average[f"network.{name}"], parameter) for name, parameter in network.named_parameters())
    schedule = Schedule(recipe_of(checkpoint.recipe, "the checkpoint's recipe"))
    is_one = schedule.is_one_decoder(schedule.progress(max(0, checkpoint.step - 1), checkpoint.minutes))
    export_weights(network, path, dtype, is_one)
