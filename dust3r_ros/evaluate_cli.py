"""`dust3r_ros evaluate`: models measured side by side on pairs and sequences whose truth is known."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dust3r_ros.errors import Dust3rError

if TYPE_CHECKING:
    from dust3r_ros.training.evaluation.run import Advance

DATA = ("held_out", "room", "motorcycle")


class EvaluateError(Dust3rError):
    """A table that cannot be made or written."""


def evaluate(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models by name, or files of weights; without any, all that can run here.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option("--data", help="held_out, room, motorcycle or kitchen; may be given often.")] = None,
    kitchen: Annotated[Path | None, typer.Option(help="Folder of the red kitchen: NNNNNN.jpg, NNNNNN.depth.png, groundtruth.tum.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of each data set; the motorcycle has one.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Which pairs: the same seed gives the same ones.")] = 0,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Width of the generated pictures; models resize them to their own.")] = 320,
    sequences: Annotated[bool, typer.Option("--sequences", help="Also whole sequences through the alignment: half a minute each.")] = False,
    calibrated: Annotated[bool, typer.Option("--calibrated", help="Tell the models the cameras; else 60 degrees are assumed.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile networks, as estimator.compile does: a minute or two.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the table to this file.")] = None,
) -> None:
    """Measure models side by side: points, depth, relative pose, focal length and confidence on pairs of known truth, as one table.

    docs/evaluation.md says what each figure is. A trajectory is measured by 'dust3r_ros compare'.
    """
    from rich.console import Console

    from dust3r_ros.training.evaluation import run, table
    from dust3r_ros.training.evaluation.data import chosen_sets, held_out_source
    from dust3r_ros.training.evaluation.sequence_run import chosen_sequences

    names = list(dict.fromkeys(models or run.models_here()))
    wanted = list(dict.fromkeys(data or [*DATA, *(["kitchen"] if kitchen is not None else [])]))
    sets = chosen_sets(wanted, pairs, seed, size, kitchen, lambda: held_out_source(seed, size))
    for file in (json_file, markdown_file):  # before minutes are spent
        if file is not None and not file.resolve().parent.is_dir():
            raise EvaluateError(f"{file} cannot be written: there is no folder {file.resolve().parent}; make it first")
    labels = run.labels_of(names)
    made = [
        (label, lambda name=name: run.estimator_of(name, device, precision, compiled)) for label, name in zip(labels, names, strict=True)
    ]
    with _progress() as advance:
        rows = run.evaluate(made, sets, chosen_sequences(kitchen) if sequences else (), calibrated, advance)
    settings = {"pairs": pairs, "seed": seed, "size": size, "calibrated": calibrated, "compiled": compiled, **run.machine()}
    told = run.Evaluation(rows, _command(), settings)
    _write(json_file, json.dumps(told.words(), indent=1) + "\n")
    _write(markdown_file, table.markdown(rows))
    console = Console()
    if console.is_terminal:
        console.print(table.rich_table(rows))
    else:
        Console(width=220).print(table.rich_table(rows))


def _command() -> str:
    """As it was typed, without where files lie."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return shlex.join(["dust3r_ros", *words])


def _write(file: Path | None, text: str) -> None:
    if file is None:
        return
    try:
        file.write_text(text)
    except OSError as error:
        raise EvaluateError(f"{file} cannot be written: {error.strerror}; name a file on a disk with space") from error


@contextmanager
def _progress() -> Iterator[Advance | None]:
    """On a terminal: what is worked on, on standard error."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status("starting") as status:
        yield lambda text, done: status.update(f"{text}: {done}")
