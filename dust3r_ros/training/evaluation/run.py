"""Models over data sets and sequences: one row of figures for each model on each of them."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dust3r_ros.estimators import MODELS, Estimator, EstimatorError, create_estimator
from dust3r_ros.models.shipped import FORMAT, NANO, shipped_weights
from dust3r_ros.network import PUBLISHED
from dust3r_ros.training.evaluation.data import DataSet
from dust3r_ros.training.evaluation.pair_run import pair_scores
from dust3r_ros.training.evaluation.sequence_run import TrueSequence, sequence_figures
from dust3r_ros.training.evaluation.summary import Figures, summarise
from dust3r_ros.training.evaluation.truth import TruePair

log = logging.getLogger(__name__)

Advance = Callable[[str, int], None]  # what is worked on, and how many of its pairs or images are done


@dataclass(frozen=True)
class Row:
    """One model on one data set or sequence."""

    data: str
    model: str
    parameters: int  # 0: no network
    figures: Figures


@dataclass(frozen=True)
class Evaluation:
    """All rows, and what they were measured with."""

    rows: tuple[Row, ...]
    command: str
    settings: dict[str, Any]

    def words(self) -> dict[str, Any]:
        """For a JSON file."""
        rows = [{"data": row.data, "model": row.model, "parameters": row.parameters, **row.figures.words()} for row in self.rows]
        return {"format": FORMAT, "command": self.command, "settings": self.settings, "rows": rows}


def models_here() -> list[str]:
    """What can run on this machine without fetching anything: flow, the shipped model, published weights on this disk."""
    from dust3r_ros.network.hub import cached, weights_of

    shipped = [NANO] if shipped_weights() is not None else []
    return ["flow", *shipped, *(name for name in PUBLISHED if cached(weights_of(name)) is not None)]


def estimator_of(model: str, device: str = "auto", precision: str = "auto", compiled: bool = False) -> Estimator:
    """The estimator of a model's name or a file of weights. Raises EstimatorError for what is neither."""
    if model in MODELS:
        return create_estimator(model, device=device, precision=precision, compile=compiled)
    if not Path(model).expanduser().exists():
        raise EstimatorError(f"'{model}' is no model and no file of weights: give a path, or one of {', '.join(MODELS)}")
    return create_estimator(weights=model, device=device, precision=precision, compile=compiled)


def evaluate(
    models: Sequence[tuple[str, Callable[[], Estimator]]],
    data: Sequence[DataSet],
    sequences: Sequence[TrueSequence] = (),
    calibrated: bool = False,
    advance: Advance | None = None,
) -> tuple[Row, ...]:
    """Each of `models` (its label, and what makes it) over everything; rows by data, then by model.

    Only one model is held at a time. The pairs are made once and kept: 1 MB each at 320x240. Raises what the data sets and the models do.
    """
    pairs: dict[str, list[TruePair]] = {}
    found: dict[tuple[str, str], Row] = {}
    for label, make in models:
        estimator = make()
        parameters = parameters_of(estimator)
        for chosen in data:
            if chosen.name not in pairs:
                pairs[chosen.name] = list(_told(chosen.pairs(), f"{chosen.name}: making pairs", advance))
            scores = list(_told(pair_scores(estimator, pairs[chosen.name], calibrated), f"{label} on {chosen.name}", advance))
            found[chosen.name, label] = Row(chosen.name, label, parameters, summarise(scores))
        for sequence in sequences:
            report = None if advance is None else _counter(f"{label} on {sequence.name}", advance)
            found[sequence.name, label] = Row(sequence.name, label, parameters, sequence_figures(estimator, sequence, report))
        del estimator
    names = [chosen.name for chosen in data] + [sequence.name for sequence in sequences]
    return tuple(found[name, label] for name in names for label, _ in models)


def labels_of(models: Sequence[str]) -> list[str]:
    """Short names for the table: a file's stem, or its whole path where two files have one stem."""
    stems = [model if model in MODELS else Path(model).stem for model in models]
    return [stem if stems.count(stem) == 1 else model for stem, model in zip(stems, models, strict=True)]


def parameters_of(estimator: Estimator) -> int:
    """Numbers that were learned."""
    network = getattr(estimator, "network", None)
    return 0 if network is None else sum(parameter.numel() for parameter in network.parameters())


def machine() -> dict[str, Any]:
    """What the figures depend on besides the seed: times on the processor, all else a little on the versions."""
    import torch

    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _told(items: Iterator[Any], text: str, advance: Advance | None) -> Iterator[Any]:
    report = (lambda: None) if advance is None else _counter(text, advance)
    for item in items:
        yield item
        report()


def _counter(text: str, advance: Advance) -> Callable[[], None]:
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        advance(text, done)

    return report
