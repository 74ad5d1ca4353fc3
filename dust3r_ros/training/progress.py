"""What a person at the screen sees of a run: one line that moves, or plain lines where there is no terminal. On standard error."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dust3r_ros.training.loop import Line
from dust3r_ros.training.validation import Validation


@contextmanager
def progress_line(validation: Validation | None) -> Iterator[Callable[[Line], None]]:
    """Yields what each line is said to."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True)

    def text(line: Line) -> str:
        found = f"step {line.step} {line.objective}: loss {line.loss:.4f}"
        found += f", error {line.error:.4f}" if line.objective == "pointmaps" else ""
        if validation is not None and validation.last:
            found += f", held out {validation.last['error']:.4f} (AbsRel {validation.last['abs_rel']:.3f})"
        found += f", {line.pairs_per_second:.3g} pairs/s" if line.pairs_per_second else ""
        return found + f", {time_of(line.seconds_left)} left"

    if not console.is_terminal:
        yield lambda line: print(text(line), file=sys.stderr, flush=True)
        return
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    try:
        with Progress(BarColumn(30), TaskProgressColumn(), TextColumn("{task.description}"), console=console) as progress:
            for handler in handlers:
                handler.setStream(sys.stderr)  # which is the line's now: warnings go above it
            task = progress.add_task("the first steps", total=1.0)
            yield lambda line: progress.update(task, completed=line.progress, description=text(line))
    finally:
        for handler in handlers:
            handler.setStream(sys.stderr)


def time_of(seconds: float) -> str:
    """3725 is 1:02:05."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
