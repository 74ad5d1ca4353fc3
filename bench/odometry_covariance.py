"""Whether the odometry's covariance is honest: normalised estimation errors squared (NEES) over simulated sequences.

    python bench/odometry_covariance.py [--frames 60] [--size 160] [--seeds 4] [--json FILE]

For each sequence the odometry is brought into the truth's frame at its first frame and on its scale; e' C^-1 e / 6 is 1 on average where
the covariance C is right (Bar-Shalom et al., 2001, 5.4), above 1 where it promises too much. The estimator is told the truth with noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
from support.odometry_errors import WALKS, normalised_errors, odometry_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, default=160, help="width of the pictures")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.03])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for row in measured(given.frames, given.size, given.noise, given.seeds):
        rows.append(row)
        print(
            "  ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()), flush=True
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def measured(frames: int, size: int, noises: Sequence[float], seeds: int) -> Iterator[dict[str, object]]:
    """A walk with one noise after the other; `nees` is what the goal is set for."""
    for walk in WALKS:
        for noise in noises:
            runs = [odometry_errors(walk, frames, size, noise, seed) for seed in range(seeds)]
            both, place, turn = (np.concatenate([normalised_errors(run, part) for run in runs]) for part in ("all", "position", "rotation"))
            last = [float(np.linalg.norm(run[-1].error[:3])) for run in runs if run]
            said = [float(np.sqrt(np.trace(run[-1].covariance[:3, :3]))) for run in runs if run]
            yield {
                "walk": walk,
                "noise": noise,
                "frames": len(both),
                "nees": float(both.mean()),
                "position": float(place.mean()),
                "rotation": float(turn.mean()),
                "error at the end": float(np.mean(last)),
                "said": float(np.mean(said)),
            }


if __name__ == "__main__":
    main()
