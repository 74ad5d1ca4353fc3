"""What a run leaves to read: lines of losses, as CSV that goes on where a resumed run does."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dust3r_ros.io.atomic import atomic_file, explained

LOSSES = (
    "step",
    "minutes",
    "pairs",
    "objective",
    "learning_rate",
    "loss",
    "error",
    "confidence",
    "matching",
    "gradient_norm",
    "skipped",
    "pairs_per_second",
)
HELD_OUT = ("step", "minutes", "pairs", "loss", "error", "confidence", "abs_rel", "delta_1_25")

Value = float | int | str


@dataclass(frozen=True)
class Table:
    """A CSV file with one row for some of the steps."""

    path: Path
    columns: tuple[str, ...]

    def begin(self, step: int) -> None:
        """Rows of later steps are dropped: they will be written again. Raises OutputError where it cannot be written."""
        rows = [row for row in self.rows() if int(row["step"]) <= step]
        with atomic_file(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)

    def add(self, row: Mapping[str, Value]) -> None:
        with explained(self.path), self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow({key: _text(value) for key, value in row.items()})

    def rows(self) -> list[dict[str, str]]:
        """Whole rows of these columns; none if there is no such file."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [
                {column: row[column] for column in self.columns}
                for row in csv.DictReader(file)
                if all(row.get(column) for column in self.columns) and row["step"].isdigit()
            ]


def _text(value: Value) -> Value:
    return repr(value) if isinstance(value, float) else value  # every digit: resumed runs are compared by them
