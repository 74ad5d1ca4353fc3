"""`make demo`: the whole path on real input, with measured errors."""

from __future__ import annotations

from pathlib import Path


def run(output: Path, is_offline: bool = False) -> None:
    """Run the demo and write everything under `output`. Raises Dust3rError if it cannot run or its results are not sane."""
    from dust3r_ros.demo.run import run as perform

    perform(output, is_offline)


__all__ = ["run"]
