"""`dust3r_ros models`: the networks' weights, what is published, what is on this disk, what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dust3r_ros.network import NetworkConfig

models = typer.Typer(help="The networks' weights: list, fetch, look at.", no_args_is_help=True)


@models.command("list")
def list_models() -> None:
    """The networks, which of them are on this disk, and what 'auto' would take."""
    from rich.console import Console
    from rich.table import Table

    from dust3r_ros.estimators.choice import choose
    from dust3r_ros.models.shipped import NANO, shipped_weights
    from dust3r_ros.network import PUBLISHED
    from dust3r_ros.network.hub import cached, weights_of

    table = Table("model", "longer side", "head", "download", "on this disk", box=None)
    shipped = shipped_weights()
    table.add_row(NANO, *_size_and_head(shipped), "shipped", "no" if shipped is None else "yes")
    for name, config in PUBLISHED.items():
        weights = weights_of(name)
        table.add_row(name, *_words(config), f"{weights.megabytes} MB", "yes" if cached(weights) else "no")
    table.add_row("flow", "320", "no network", "", "yes")
    Console(soft_wrap=True).print(table)
    choice = choose()
    typer.echo(f"auto takes {choice.model}: {choice.reason}")


@models.command()
def fetch(name: Annotated[str, typer.Argument(help="One of 'dust3r_ros models list'.")]) -> None:
    """Fetch published weights into the Hugging Face Hub's cache; what was interrupted goes on. Prints where they are."""
    from dust3r_ros.network.hub import fetch as fetch_weights
    from dust3r_ros.network.hub import weights_of
    from dust3r_ros.network.loading import LICENCE

    weights = weights_of(name)
    typer.echo(f"{name}: {LICENCE}", err=True)
    typer.echo(fetch_weights(weights))


@models.command()
def info(weights: Annotated[str, typer.Argument(help="A file of weights, or a name whose weights are on this disk.")]) -> None:
    """What a file of weights holds, and whether it fits."""
    import torch

    from dust3r_ros.models.shipped import NANO, shipped_weights
    from dust3r_ros.network import PUBLISHED, CheckpointError, TwoViewNetwork
    from dust3r_ros.network.checkpoint_file import open_checkpoint
    from dust3r_ros.network.hub import cached, weights_of
    from dust3r_ros.network.loading import config_of_file, fitting_state, licence_of

    path: Path | None = Path(weights)
    if weights == NANO:
        path = shipped_weights()
        if path is None:
            raise CheckpointError(f"this build ships no {NANO}: give a file")
    elif weights in PUBLISHED:
        path = cached(weights_of(weights))
        if path is None:
            raise CheckpointError(f"{weights} is not on this disk: 'dust3r_ros models fetch {weights}', or give a file")
    assert path is not None
    file = open_checkpoint(path)
    config = config_of_file(file, weights if weights in PUBLISHED else None)
    with torch.device("meta"):
        network = TwoViewNetwork(config)
    fitting_state(file.tensors, network.state_dict(), str(file.path))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in file.tensors.values()})
    descriptors = f", descriptors of {config.descriptor_width} channels" if config.descriptor_width else ""
    typer.echo(f"{file.path}: fits; {parameters / 1e6:.1f} million parameters, {file.path.stat().st_size / 1e6:.0f} MB, {', '.join(kinds)}")
    typer.echo(f"encoder: {config.encoder_depth} blocks of {config.encoder_width}, {config.encoder_heads} heads")
    typer.echo(f"decoders: 2 of {config.decoder_depth} blocks of {config.decoder_width}, {config.decoder_heads} heads")
    sides = "squares" if config.square else "longer side"
    typer.echo(f"head: {config.head}{descriptors}; patches of {config.patch_size} pixels; trained on {sides} of {config.image_size} pixels")
    typer.echo(f"licence: {licence_of(file, config) or 'the file does not say'}")


def _size_and_head(shipped: Path | None) -> tuple[str, str]:
    """Of the shipped model, as its file says."""
    from dust3r_ros.network.checkpoint_file import open_checkpoint
    from dust3r_ros.network.loading import config_of_file

    return ("224", "") if shipped is None else _words(config_of_file(open_checkpoint(shipped)))


def _words(config: NetworkConfig) -> tuple[str, str]:
    head = f"{config.head}, desc{config.descriptor_width}" if config.descriptor_width else config.head
    return f"{config.image_size}", head
