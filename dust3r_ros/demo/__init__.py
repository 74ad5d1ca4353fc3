"""`make demo`: the whole path on real input, with measured errors."""

from __future__ import annotations

from pathlib import Path


def run(output: Path, is_offline: bool = False) -> int:
    """Run the demo and write everything under `output`; the exit status, 0 if it ran and its results are sane."""
    from dust3r_ros.demo.run import run as perform

    return perform(output, is_offline)


__all__ = ["run"]
