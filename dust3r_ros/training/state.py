"""Everything of a run that changes while it trains: made anew, written to a checkpoint, taken from one."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from dust3r_ros.network import CheckpointError, CrossViewCompletion, TwoViewNetwork, load_network, named
from dust3r_ros.network.config_words import config_of_words, words_of_config
from dust3r_ros.training.checkpoints import CheckpointRefusedError, TrainingCheckpoint
from dust3r_ros.training.initialisation import fresh_network
from dust3r_ros.training.objectives import MEASURES
from dust3r_ros.training.optimisation import Optimisation, copied
from dust3r_ros.training.recipe import Recipe
from dust3r_ros.training.recipe_file import data_of


@dataclass(eq=False)
class TrainingState:
    learner: CrossViewCompletion  # the network, with pretraining's head
    average: CrossViewCompletion  # the running average of its weights
    optimisation: Optimisation
    step: int = 0  # steps done
    first_step: int = 0  # where the optimiser started anew
    pairs: int = 0  # seen, in all runs
    minutes: float = 0.0  # of training before this run
    sums: Tensor = field(default_factory=lambda: torch.zeros(len(MEASURES) + 2))  # of MEASURES, gradient norm and count since the last line

    @property
    def network(self) -> TwoViewNetwork:
        return self.learner.network

    def checkpoint(self, recipe: Recipe, minutes: float) -> TrainingCheckpoint:
        """`minutes` of training so far, in all runs."""
        tensors = {
            **{f"weights/{name}": value for name, value in self.learner.named_parameters()},
            **{f"average/{name}": value for name, value in self.average.named_parameters()},
            **{f"optimiser/{name}": value for name, value in self.optimisation.state().items()},
            "random/cpu": torch.get_rng_state(),
            "records/sums": self.sums,
        }
        if self.sums.is_cuda:
            tensors["random/cuda"] = torch.cuda.get_rng_state()
        words = words_of_config(self.network.config)
        return TrainingCheckpoint(self.step, self.first_step, self.pairs, minutes, data_of(recipe), words, tensors)


def fresh_state(recipe: Recipe, device: torch.device, weights: Path | str = "", start_step: int = 0) -> TrainingState:
    """A run that starts at `start_step` of the schedule, from random weights or those of a file. Raises CheckpointError for weights."""
    given = str(weights or recipe.network.weights)
    if given == "published":
        from dust3r_ros.network.hub import fetch, weights_of

        given = str(fetch(weights_of(recipe.network.model)))
    network = fresh_network(named(recipe.network.model), recipe.seed) if not given else _loaded(given, recipe)
    state = state_of_network(network, recipe, device)
    state.step = state.first_step = start_step
    return state


def state_of_network(network: TwoViewNetwork, recipe: Recipe, device: torch.device) -> TrainingState:
    """A run that begins with these weights."""
    learner = CrossViewCompletion(network.requires_grad_(True))
    nn.init.xavier_uniform_(learner.prediction_head.weight, generator=torch.Generator().manual_seed(recipe.seed))
    nn.init.zeros_(learner.prediction_head.bias)
    return _state(learner, recipe, device)


def state_of(checkpoint: TrainingCheckpoint, recipe: Recipe, device: torch.device) -> TrainingState:
    """The run that wrote the checkpoint. Raises CheckpointRefusedError where its tensors are not those of such a run."""
    config = config_of_words(checkpoint.network, {}, "the checkpoint")
    learner = CrossViewCompletion(TwoViewNetwork(config))
    state = _state(learner, recipe, device)
    for prefix, module in (("weights", state.learner), ("average", state.average)):
        wanted, found = dict(module.named_parameters()), checkpoint.under(prefix)
        odd = set(wanted) ^ set(found) or {name for name in wanted if wanted[name].shape != found[name].shape}
        if odd:
            raise CheckpointRefusedError(
                f"the checkpoint's {prefix} do not fit its network: {sorted(odd)[0]} and {len(odd) - 1} more are missing, surplus or "
                "misshapen; go on from another one"
            )
        copied((found[name], wanted[name]) for name in wanted)
    state.optimisation.load_state(checkpoint.under("optimiser"))
    state.step, state.first_step = checkpoint.step, checkpoint.first_step
    state.pairs, state.minutes = checkpoint.pairs, checkpoint.minutes
    state.sums = checkpoint.under("records")["sums"].to(device)
    random = checkpoint.under("random")
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and device.type == "cuda":
        torch.cuda.set_rng_state(random["cuda"])
    return state


def _state(learner: CrossViewCompletion, recipe: Recipe, device: torch.device) -> TrainingState:
    learner.network.looks_at_images = False  # a gradient that is not finite tells the same, and waits for nothing
    learner.network.channels_last()
    learner = learner.to(device).train()
    average = copy.deepcopy(learner).requires_grad_(False).eval()
    state = TrainingState(learner, average, Optimisation(learner, average, recipe.optimiser))
    state.sums = state.sums.to(device)
    return state


def _loaded(weights: str, recipe: Recipe) -> TwoViewNetwork:
    try:
        return load_network(Path(weights))
    except CheckpointError as error:
        if "do not say which network" not in str(error):
            raise
        return load_network(Path(weights), recipe.network.model)
