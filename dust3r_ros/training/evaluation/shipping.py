"""A trained network becomes the shipped one, if it is better than the one before it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import Estimator, create_estimator
from dust3r_ros.models import shipped
from dust3r_ros.models.verdict import Figures, not_better, verdict
from dust3r_ros.network import CheckpointError, NetworkError, load_network, save_network
from dust3r_ros.training.evaluation.breakdown import breakdown
from dust3r_ros.training.evaluation.data import DataSet
from dust3r_ros.training.evaluation.model_card import Facts, model_card
from dust3r_ros.training.evaluation.run import Advance, Evaluation, Row, evaluate, machine, parameters_of
from dust3r_ros.training.evaluation.sequence_run import TrueSequence
from dust3r_ros.training.evaluation.training_record import TrainingRecord

MOST_BYTES = 40_000_000  # of the weights in the package
LICENCE = "Apache-2.0"
UNFINISHED = ".shipping_"  # beginning of the name of the folder in which files wait to be whole
BEFORE = "shipped before"  # the row of what is to be replaced


class ShippingError(Dust3rError):
    """Weights that are not to be shipped."""


@dataclass(frozen=True)
class Shipped:
    """What was shipped."""

    weights: Path
    rows: tuple[Row, ...]
    reason: str  # what auto takes now, and why


def ship(
    weights: Path,
    record: TrainingRecord,
    data: Sequence[DataSet],
    sequences: Sequence[TrueSequence],
    settings: dict[str, object],
    command: str,
    force: str = "",
    folder: Path | None = None,
    advance: Advance | None = None,
) -> Shipped:
    """Measure `weights` as float16 beside flow and the model shipped so far, and put them, their figures and their card into the package.

    `data` and `sequences` hold what the headlines are of (`models.verdict.HEADLINES`); `force`: a reason to ship them though they are not
    better, which the card tells. `folder`: of the package. Raises ShippingError if they are too large, or not better on every headline
    figure (where nothing was shipped before: if there is nothing to compare with, they pass); CheckpointError for a file that is none.
    """
    folder = shipped.folder() if folder is None else folder
    network = load_network(weights)
    for left in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left)  # by a run that was killed
    with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as made:
        candidate = Path(made) / shipped.WEIGHTS
        save_network(network, candidate, torch.float16, LICENCE)
        size = candidate.stat().st_size
        if size > MOST_BYTES:
            raise ShippingError(f"weights {weights} take {size / 1e6:.0f} MB in float16, the package has room for {MOST_BYTES / 1e6:.0f}")
        old = folder / shipped.WEIGHTS
        models: list[tuple[str, Callable[[], Estimator]]] = [
            (shipped.NANO, partial(_estimator, candidate)),
            ("flow", partial(create_estimator, "flow")),
        ]
        then = _figures_then(old, folder / shipped.SCORES, settings)
        if old.is_file() and not then:
            models.append((BEFORE, partial(_estimator, old)))
        rows = evaluate(models, data, sequences, advance=advance)
        figures = {**shipped.figures_of(Evaluation(rows, command, {}).words()), **then}
        worse = not_better(figures[shipped.NANO], figures[BEFORE]) if BEFORE in figures else []
        if worse and not force:
            raise ShippingError(
                f"weights {weights} are not better than the shipped ones: {'; '.join(worse)}; train on, or give a reason to force it"
            )
        kept = tuple(row for row in rows if row.model != BEFORE)
        better = verdict((shipped.NANO, figures[shipped.NANO]), ("flow", figures["flow"]))
        estimator = _estimator(candidate)
        held_out = [list(chosen.pairs()) for chosen in data if chosen.name == "held_out"]
        bands = breakdown(estimator, held_out[0]) if held_out else []
        card = model_card(
            Facts(
                shipped.NANO, network.config, parameters_of(estimator), size / 1e6, record, kept, figures[shipped.NANO], bands, better,
                command, force if worse else "", worse,
            )
        )  # fmt: skip
        scores = Evaluation(kept, command, {**settings, **machine()}).words()
        (Path(made) / shipped.SCORES).write_text(json.dumps(scores, indent=1) + "\n")
        (Path(made) / shipped.CARD).write_text(card)
        for name in (shipped.SCORES, shipped.CARD, shipped.WEIGHTS):  # the weights last: without them the rest says nothing
            os.replace(Path(made) / name, folder / name)
    return Shipped(folder / shipped.WEIGHTS, rows, f"auto takes {better.model}: {better.reason}")


def _figures_then(old: Path, scores: Path, settings: dict[str, object]) -> dict[str, Figures]:
    """What the model shipped so far was measured to do when it was shipped, where this version cannot run it any more; else nothing.

    Raises ShippingError where that was not measured in this way.
    """
    if not old.is_file():
        return {}
    try:
        load_network(old)
    except (CheckpointError, NetworkError) as error:
        words = shipped.shipped_scores(scores)
        known = {} if words is None else shipped.figures_of(words)
        same = words is not None and all(words["settings"].get(name) == value for name, value in settings.items())
        if shipped.NANO not in known or not same:
            raise ShippingError(
                f"weights {old} are of an earlier architecture ({error}), and their figures were not measured as these are: measure with "
                "the settings that they were shipped with"
            ) from error
        return {BEFORE: known[shipped.NANO]}
    return {}


def _estimator(weights: Path) -> Estimator:
    """On the CPU, where the shipped model has to be good, in numbers that are the same on every one."""
    return create_estimator(weights=str(weights), device="cpu", precision="float32")
