"""The data that a recipe asks for: for training, of several sizes, and what is held out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dust3r_ros.errors import Dust3rError
from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.inputs import seed_of
from dust3r_ros.training.pairs import PairBatch, PairSource
from dust3r_ros.training.recipe import Recipe
from dust3r_ros.training.recipe_file import filled
from dust3r_ros.training.replay import CLOSEST, Replayed

if TYPE_CHECKING:
    from dust3r_ros.training.scenes import PairsConfig

SIZE_DRAWN = 3
PICTURES = 6  # whose scenes are others than the pairs'


@dataclass(frozen=True)
class OfSeveralSizes:
    """One of the sources for each optimiser step, by the step's number: batches of one step are of one size."""

    sources: list[PairSource]
    seed: int
    accumulate: int

    def batch(self, step: int) -> PairBatch:
        which = 0
        if len(self.sources) > 1:
            which = int(np.random.default_rng([self.seed, SIZE_DRAWN, step // self.accumulate]).integers(len(self.sources)))
        return self.sources[which].batch(step)


def training_source(recipe: Recipe, device: torch.device) -> PairSource:
    """Raises TrainingError for settings that no data can be made of."""
    made = OfSeveralSizes(_sources(recipe, device, "train", recipe.sizes), recipe.seed, recipe.data.accumulate)
    return _replayed(made, recipe)


def pictures_source(recipe: Recipe, device: torch.device, shrink: int) -> PairSource:
    """Of pictures that teach one by one, as small as a network that halves them (`shrink` 2) sees them: both views of each of its pairs."""
    return _replayed(_new_pictures(recipe, device, shrink), recipe, CLOSEST)


def _new_pictures(recipe: Recipe, device: torch.device, shrink: int) -> OfSeveralSizes:
    sizes = [(width // shrink, height // shrink) for width, height in recipe.sizes]
    small = replace(recipe, data=replace(recipe.data, batch=-(-recipe.data.pictures // 2)), seed=seed_of(recipe.seed, PICTURES) % 2**31)
    if recipe.data.source == "rgbd":
        return OfSeveralSizes(_sources(small, device, "train", sizes), recipe.seed, recipe.data.accumulate)
    from dust3r_ros.training.scenes import GeneratedPairs

    sources: list[PairSource] = []
    for width, height in sizes:
        config = _config(small, device, width, height)
        effects = replace(config.effects, blur=config.effects.blur / shrink, noise=config.effects.noise / shrink)  # they are halved too
        sources.append(GeneratedPairs(replace(config, pairs_per_scene=1, effects=effects), small.seed, device))
    return OfSeveralSizes(sources, recipe.seed, recipe.data.accumulate)


def held_out_source(recipe: Recipe, device: torch.device) -> PairSource:
    """Of the first size."""
    return _sources(recipe, device, "held_out", recipe.sizes[:1])[0]


def _replayed(made: OfSeveralSizes, recipe: Recipe, closest: float = 1.0) -> PairSource:
    data = recipe.data
    return made if data.replay == 1 else Replayed(made, data.replay, recipe.seed, data.accumulate, closest)


def _sources(recipe: Recipe, device: torch.device, split: str, sizes: list[tuple[int, int]]) -> list[PairSource]:
    if recipe.data.source == "rgbd":
        from dust3r_ros.training.rgbd import RgbdPairs

        return [RgbdPairs(recipe.data.rgbd, width, height, recipe.data.batch, recipe.seed, device, split) for width, height in sizes]
    from dust3r_ros.training.scenes import GeneratedPairs

    return [GeneratedPairs(_config(recipe, device, width, height), recipe.seed, device, split) for width, height in sizes]


def _config(recipe: Recipe, device: torch.device, width: int, height: int) -> PairsConfig:
    """Of generated pairs. Raises TrainingError for what they cannot be made of."""
    from dust3r_ros.training.scenes import PairsConfig

    given: dict[str, Any] = {**recipe.scenes}
    for key in ("width", "height", "pairs"):
        if key in given:
            raise TrainingError(f"'scenes.{key}' is {given[key]!r}: leave it out, and set data.sizes and data.batch")
    own = {"width": width, "height": height, "pairs": recipe.data.batch, "compile": recipe.hardware.compile and device.type == "cuda"}
    try:
        return filled(PairsConfig, {**own, **given}, "scenes")
    except TrainingError:
        raise
    except Dust3rError as error:
        raise TrainingError(f"scenes: {error}") from error
