"""The files of the shipped model, in the sources and in an installed wheel alike. A build may ship none."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from dust3r_ros.errors import Dust3rError
from dust3r_ros.models.verdict import Figures, Verdict, verdict

NANO = "dust3r_nano"
WEIGHTS, SCORES, CARD = f"{NANO}.safetensors", f"{NANO}.json", "MODEL_CARD.md"
FORMAT = 1  # of the scores


class ShippedModelError(Dust3rError):
    """A file of the package that is damaged."""


def folder() -> Path:
    """Where the files lie. The package is never run from an archive (zip_safe=False), so that this is a folder on the disk."""
    return Path(str(files("dust3r_ros.models")))


def shipped_weights() -> Path | None:
    """The weights of dust3r_nano; None: this build ships none."""
    path = folder() / WEIGHTS
    return path if path.is_file() else None


def shipped_scores(path: Path | None = None) -> dict[str, Any] | None:
    """What `dust3r_ros evaluate --json` wrote when the model was shipped; None: no such file. Raises ShippedModelError if it is damaged."""
    path = folder() / SCORES if path is None else path
    try:
        words = json.loads(path.read_text())
        if words["format"] != FORMAT:
            raise ShippedModelError(f"scores {path}: format {words['format']}, but this version reads {FORMAT}; install the package anew")
        figures_of(words)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShippedModelError(f"scores {path} are damaged ({type(error).__name__}: {error}); install the package anew") from error
    return dict(words)


def figures_of(scores: dict[str, Any]) -> dict[str, Figures]:
    """The figures of each model of an evaluation: model to (data, measure) to the value."""
    found: dict[str, dict[tuple[str, str], float | None]] = {}
    for row in scores["rows"]:
        values = {name: value for name, value in row.items() if value is None or isinstance(value, (int, float))}
        found.setdefault(str(row["model"]), {}).update({(str(row["data"]), name): value for name, value in values.items()})
    return dict(found)


def nano_or_flow() -> Verdict | None:
    """Which of the two the shipped figures speak for; None: this build ships no model, or no figures of both. Raises ShippedModelError."""
    if shipped_weights() is None:
        return None
    scores = shipped_scores()
    figures = {} if scores is None else figures_of(scores)
    if NANO not in figures or "flow" not in figures:
        return None
    return verdict((NANO, figures[NANO]), ("flow", figures["flow"]))
