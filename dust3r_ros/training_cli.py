"""`dust3r_ros train`: train a network from a recipe, go on with a run, export its weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

training = typer.Typer(invoke_without_command=True)


@training.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", help="The recipe, e.g. config/train/dust3r_nano.yaml.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder: checkpoints, losses, pictures, weights.")] = Path(
        "training_output"
    ),
    resume: Annotated[
        str | None, typer.Option(help="Go on from a checkpoint's file, or 'auto': the newest of the folder that is whole.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Start from these weights, with a fresh optimiser.")] = None,
    start_step: Annotated[int, typer.Option(min=0, help="The step of the schedule (and of the data) that --weights stand at.")] = 0,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Save, export and end after so many minutes.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One setting of the recipe, as key=value; may be given often.")
    ] = None,
) -> None:
    """Train a network: what the recipe says, in one folder. Ctrl-C saves and ends; '--resume auto' goes on."""
    if context.invoked_subcommand is not None:
        return
    from dust3r_ros.training.errors import TrainingError
    from dust3r_ros.training.recipe_file import read_recipe
    from dust3r_ros.training.run import train as run

    if config is None:
        raise TrainingError("train needs a recipe: give --config, for instance config/train/dust3r_nano_cpu.yaml")
    logging.getLogger("dust3r_ros.training").setLevel(logging.INFO)
    ended = run(read_recipe(config, settings), output, resume, weights, minutes, start_step)
    why = {"schedule": "the schedule is over", "time": "the time is over; '--resume auto' goes on"}
    typer.echo(
        f"step {ended.step}, {ended.minutes:.1f} minutes: {why.get(ended.reason, 'stopped')}; weights in {output / 'weights.safetensors'}"
    )
    if ended.signal:
        raise typer.Exit(128 + ended.signal)


@training.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of a run, or the run's folder (its newest).")],
    weights: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    precision: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
) -> None:
    """Write a run's averaged weights as a file that the estimators load, and that --weights starts from."""
    import torch

    from dust3r_ros.training.checkpoint_folder import CheckpointFolder
    from dust3r_ros.training.checkpoints import read_checkpoint
    from dust3r_ros.training.errors import TrainingError
    from dust3r_ros.training.export import export_checkpoint

    if precision not in ("float16", "bfloat16", "float32"):
        raise TrainingError(f"--precision {precision}: give float16, bfloat16 or float32")
    if weights.suffix != ".safetensors":
        raise TrainingError(f"weights {weights}: give a file that ends in .safetensors")
    found = CheckpointFolder(checkpoint / "checkpoints").newest() if checkpoint.is_dir() else read_checkpoint(checkpoint)
    if found is None:
        raise TrainingError(f"{checkpoint} holds no checkpoints: give the folder that 'dust3r_ros train --output' wrote")
    export_checkpoint(found, weights, getattr(torch, precision))
    typer.echo(f"{weights}: step {found.step}, {weights.stat().st_size / 1e6:.1f} MB, {precision}")
