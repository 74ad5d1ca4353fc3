"""A whole run: from a recipe to weights, in one folder that a later run goes on with."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from dust3r_ros.estimators.two_view.hardware import choose_hardware
from dust3r_ros.io.atomic import atomic_file
from dust3r_ros.training.checkpoint_folder import CheckpointFolder
from dust3r_ros.training.checkpoints import TrainingCheckpoint, read_checkpoint
from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.export import export_weights
from dust3r_ros.training.host_memory import keep_memory
from dust3r_ros.training.inputs import FindCorrespondences
from dust3r_ros.training.loop import Ended, TrainingLoop
from dust3r_ros.training.pairs import PairSource
from dust3r_ros.training.progress import progress_line
from dust3r_ros.training.recipe import HardwareSection, Recipe
from dust3r_ros.training.recipe_file import data_of
from dust3r_ros.training.schedule import Schedule
from dust3r_ros.training.sources import held_out_source, pictures_source, training_source
from dust3r_ros.training.state import TrainingState, fresh_state, state_of
from dust3r_ros.training.validation import Validation

log = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    output: Path,
    resume: str | None = None,
    weights: Path | None = None,
    minutes: float | None = None,
    start_step: int = 0,
) -> Ended:
    """Train in the folder `output`: checkpoints/, losses.csv, held_out.csv, curves.png, samples/, recipe.yaml, weights.safetensors.

    `resume`: "auto" (the newest checkpoint there, else a fresh start) or a checkpoint's file; `weights`: start from these with a fresh
    optimiser, at `start_step` of the schedule; `minutes`: end after so many. Raises Dust3rError for what the user can mend.
    """
    device, precision = prepared(recipe.hardware)
    state, has_begun = _state(recipe, output, resume, weights, start_step, device)
    _check_sizes(recipe, state.network.config.patch_size)
    schedule = Schedule(recipe)
    if schedule.is_over(state.step, state.minutes):
        raise TrainingError(
            f"the schedule is over at step {state.step} ({state.minutes:.1f} minutes): set schedule.{recipe.schedule.by} higher to go on"
        )
    _write_recipe(recipe, output)
    validation = None
    if recipe.records.validate_every:
        validation = Validation(recipe, held_out_source(recipe, device), output, precision)
        validation.begin(state.step)
        if not has_begun:
            validation.look(state.average.network, state.step, 0.0, 0)
    with progress_line(validation) as say:
        source, pictures = training_source(recipe, device), _pictures(recipe, state, device)
        loop = TrainingLoop(recipe, state, source, output, precision, validation, _correspondences(recipe, state), say, pictures)
        ended = loop.run(minutes)
    if validation is not None:
        if state.step % recipe.records.validate_every:
            validation.look(state.average.network, state.step, ended.minutes, state.pairs)
        from dust3r_ros.training.pictures import draw_curves

        draw_curves(output)
    is_one = schedule.is_one_decoder(schedule.progress(state.step - 1, ended.minutes))
    export_weights(state.average.network, output / "weights.safetensors", is_one_decoder=is_one)
    return ended


def prepared(settings: HardwareSection) -> tuple[torch.device, torch.dtype]:
    """Where it trains and how it multiplies, with the switches set that training wants."""
    keep_memory()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    hardware = choose_hardware(settings.device, settings.precision)
    precision = torch.bfloat16 if hardware.precision == torch.float16 else hardware.precision  # without a scaler float16 loses gradients
    if hardware.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False  # poses and points are products of matrices too: 10 bits would be wrong truth
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True  # shapes are fixed
    log.info("training on %s", hardware.text)
    return hardware.device, precision


def _state(
    recipe: Recipe, output: Path, resume: str | None, weights: Path | None, start_step: int, device: torch.device
) -> tuple[TrainingState, bool]:
    """The state to start from, and whether it is an earlier run's."""
    folder = CheckpointFolder(output / "checkpoints")
    if resume and weights:
        raise TrainingError("--resume and --weights: a run goes on from its checkpoint or starts from weights; give one of them")
    if start_step and resume != "auto" and not weights:
        raise TrainingError(f"--start-step {start_step}: it says where weights stand in the schedule; give them with --weights")
    checkpoint: TrainingCheckpoint | None = None
    if resume == "auto":
        checkpoint = folder.newest()
        if checkpoint is None:
            log.warning("no checkpoint in %s: training starts anew", folder.path)
    elif resume:
        checkpoint = read_checkpoint(Path(resume))
    elif folder.files():
        raise TrainingError(f"{output} holds a run already: go on with '--resume auto', or choose another --output")
    if checkpoint is None:
        return fresh_state(recipe, device, weights or "", start_step), False
    _warn_of_changes(recipe, checkpoint)
    return state_of(checkpoint, recipe, device), True


def _check_sizes(recipe: Recipe, patch: int) -> None:
    for width, height in recipe.sizes:
        if width % patch or height % patch:
            nearest = f"{max(1, round(width / patch)) * patch}x{max(1, round(height / patch)) * patch}"
            raise TrainingError(f"'data.sizes' has '{width}x{height}', but the network has patches of {patch} pixels: give {nearest}")


def _warn_of_changes(recipe: Recipe, checkpoint: TrainingCheckpoint) -> None:
    old, new = _flat(checkpoint.recipe), _flat(data_of(recipe))
    changed = sorted(
        key for key in {*old, *new} if _plain(old.get(key)) != _plain(new.get(key)) and not key.startswith(("records.", "hardware."))
    )
    if changed:
        log.warning("other settings than the checkpoint's (the run goes on with the new ones): %s", ", ".join(changed))
    if recipe.schedule.by == "minutes":
        log.warning("the schedule runs over minutes: what follows is no exact continuation")


def _flat(data: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(data, dict):
        return {prefix[:-1]: data}
    return {name: value for key, inner in data.items() for name, value in _flat(inner, f"{prefix}{key}.").items()}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _write_recipe(recipe: Recipe, output: Path) -> None:
    import json

    import yaml

    with atomic_file(output / "recipe.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(json.loads(json.dumps(data_of(recipe), default=str)), sort_keys=False))


def _pictures(recipe: Recipe, state: TrainingState, device: torch.device) -> PairSource | None:
    if recipe.objective.alone == 0:
        return None
    if state.network.geometry is None:
        raise TrainingError(
            f"objective.alone is {recipe.objective.alone}, but '{recipe.network.model}' says nothing of a picture alone: set it to 0"
        )
    return pictures_source(recipe, device, state.network.config.shrink)


def _correspondences(recipe: Recipe, state: TrainingState) -> FindCorrespondences | None:
    if recipe.objective.matching == 0:
        return None
    if not state.network.config.descriptor_width:
        raise TrainingError(
            f"objective.matching is {recipe.objective.matching}, but '{recipe.network.model}' has no descriptors: set it to 0"
        )
    from dust3r_ros.training.scenes import correspondences

    return correspondences
