"""The figures as one table: on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dust3r_ros.training.evaluation.run import Row

if TYPE_CHECKING:
    from rich.table import Table

Cell = Callable[[Row], str]


def _plain(name: str, digits: int = 3) -> Cell:
    return lambda row: _text(getattr(row.figures, name), lambda value: f"{value:.{digits}f}")


def _share(name: str, digits: int = 0) -> Cell:
    return lambda row: _text(getattr(row.figures, name), lambda value: f"{100 * value:.{digits}f} %")


def _text(value: float | None, form: Callable[[float], str]) -> str:
    return "-" if value is None else form(value)


COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("data", lambda row: row.data),
    ("model", lambda row: row.model),
    ("n", lambda row: f"{row.figures.pairs}"),
    ("points", _plain("points_error")),
    ("AbsRel", _plain("depth_abs_rel")),
    ("where given", _plain("depth_abs_rel_estimated")),
    ("d<1.25", _share("depth_within_25_percent")),
    ("RRA@15", _share("rra_15")),
    ("RTA@15", _share("rta_15")),
    ("focal", _share("focal_error", 1)),
    ("AUSE", _plain("ause", 2)),
    ("corr", _plain("confidence_correlation", 2)),
    ("coverage", _share("coverage")),
    ("ATE", lambda row: _text(row.figures.ate_percent, lambda value: f"{value:.2f} %")),
    ("placed", _share("placed")),
    ("time", lambda row: _text(row.figures.seconds, lambda value: f"{1000 * value:.0f} ms")),
    ("parameters", lambda row: f"{row.parameters / 1e6:.1f} M" if row.parameters else "-"),
)
LEGEND = (
    "n: directed pairs, or images of a sequence; points: mean normalised distance; AbsRel, d<1.25: depth after one scale, a pixel without "
    "an estimate counts as the median; where given: AbsRel of the others alone; RRA, RTA: share of rotations and of translation directions "
    "within 15 degrees; focal: median error; AUSE, corr: of the confidence, best 0 and -1; time: of a pair both ways, or of an image"
)


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headers and texts, without the columns that have nothing to say."""
    used = [(name, cell) for name, cell in COLUMNS if name in ("data", "model") or any(cell(row) != "-" for row in rows)]
    return [name for name, _ in used], [[cell(row) for _, cell in used] for row in rows]


def rich_table(rows: Sequence[Row]) -> Table:
    """For a terminal; a line between the data sets."""
    from rich.table import Table

    headers, texts = cells(rows)
    table = Table(box=None, pad_edge=False, caption=LEGEND, caption_justify="left")
    for position, header in enumerate(headers):
        table.add_column(header, justify="left" if position < 2 else "right", no_wrap=position < 2)
    for position, line in enumerate(texts):
        table.add_row(*line, end_section=position + 1 < len(rows) and rows[position + 1].data != rows[position].data)
    return table


def markdown(rows: Sequence[Row]) -> str:
    """The same for a document."""
    headers, texts = cells(rows)
    lines = [headers, ["---", "---", *(["---:"] * (len(headers) - 2))], *texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
