"""What is recorded of a training: how long, on how much, where, by which recipe."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dust3r_ros.errors import Dust3rError

GENERATED = "generated scenes alone, which docs/training_data.md describes: no data set was downloaded, no other network taught it"


class RecordError(Dust3rError):
    """A training record that lacks something."""


@dataclass(frozen=True)
class TrainingRecord:
    """What the training wrote down beside its checkpoint."""

    steps: int
    pairs: int  # that it saw, each in both orders
    minutes: float
    device: str
    recipe: str
    data: str = GENERATED
    more: Mapping[str, Any] = field(default_factory=dict)  # whatever else was recorded, as it stands

    @classmethod
    def of_run(cls, folder: Path, device: str) -> TrainingRecord:
        """From the folder of a run of `dust3r_ros train`: its losses.csv and recipe.yaml. `device`: what it ran on, for people to read."""
        import yaml

        try:
            with (folder / "losses.csv").open(newline="") as file:
                last = list(csv.DictReader(file))[-1]
            recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
            sizes, data = ", ".join(recipe["data"]["sizes"]), recipe["data"]
            words = f"{recipe['network']['model']}, {sizes} pixels, batches of {data['batch'] * data['accumulate']}"
            numbers = int(last["step"]), int(last["pairs"]), float(last["minutes"])
        except (OSError, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise RecordError(f"training record {folder}: losses.csv and recipe.yaml of a run are expected ({reason})") from error
        source = GENERATED if data["source"] == "generated" else f"the recipe's source '{data['source']}'"
        return cls(*numbers, device, words, source)

    @classmethod
    def of(cls, words: Any, source: Path | str) -> TrainingRecord:
        """From the JSON of a record. Raises RecordError that names what is missing or no number."""
        if not isinstance(words, dict):
            raise RecordError(f"training record {source} holds a {type(words).__name__}: an object with steps, pairs, ... is expected")
        wanted = ("steps", "pairs", "minutes", "device", "recipe")
        missing = [name for name in wanted if name not in words]
        if missing:
            raise RecordError(f"training record {source} lacks {', '.join(missing)}: give the file that the training wrote")
        try:
            numbers = int(words["steps"]), int(words["pairs"]), float(words["minutes"])
        except (TypeError, ValueError) as error:
            raise RecordError(f"training record {source}: steps, pairs and minutes are numbers ({error})") from error
        more = {name: value for name, value in words.items() if name not in (*wanted, "data") and isinstance(value, (str, int, float))}
        return cls(*numbers, str(words["device"]), str(words["recipe"]), str(words.get("data") or GENERATED), more)


def read_record(path: Path, device: str) -> TrainingRecord:
    """A run's folder, which `device` is told of, or a JSON file. Raises RecordError."""
    if path.is_dir():
        return TrainingRecord.of_run(path, device)
    try:
        return TrainingRecord.of(json.loads(path.read_text()), path.name)
    except (OSError, ValueError) as error:
        raise RecordError(f"training record {path} cannot be read: {' '.join(str(error).split())}") from error


def combined(records: Sequence[TrainingRecord]) -> TrainingRecord:
    """Of runs that continued one another, each from the weights of the one before: sums, and every device and recipe once."""
    if not records:
        raise RecordError("no training record: give at least one")
    devices, recipes, data = ("; then ".join(dict.fromkeys(getattr(r, name) for r in records)) for name in ("device", "recipe", "data"))
    steps, pairs, minutes = sum(r.steps for r in records), sum(r.pairs for r in records), sum(r.minutes for r in records)
    return TrainingRecord(steps, pairs, minutes, devices, recipes, data, records[-1].more)
