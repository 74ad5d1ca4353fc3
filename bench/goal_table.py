"""Goals and what was found, row by row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    what: str
    found: str
    goal: str = ""  # empty: told beside a goal, or instead of one that nobody set
    reached: bool | None = None  # None: there is no goal, or it was not measured

    @property
    def verdict(self) -> str:
        return {True: "yes", False: "**no**", None: ""}[self.reached]

    def __str__(self) -> str:
        return f"{self.what:80} {self.found:48} {self.goal:28} {self.verdict.strip('*')}".rstrip()


def table(rows: Iterable[Row]) -> str:
    """The same in Markdown."""
    lines = ["| what | found | goal | reached |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {row.what} | {row.found} | {row.goal} | {row.verdict} |" for row in rows]) + "\n"
