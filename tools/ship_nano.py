"""Put trained weights into the package as dust3r_nano, with their figures and a model card, if they are better than those shipped so far.

    python tools/ship_nano.py RUN/weights.safetensors --record RUN --device "2 cores of a Xeon"
    python tools/ship_nano.py exported.safetensors --record record.json

The weights are measured as they will ship (float16 in the file, float32 on the CPU) on the fixed held-out scenes, the motorcycle, the
demo's walk and, with --kitchen, 7-Scenes' red kitchen, beside flow and the model that is in the package. They have to be better on every
headline figure; --force REASON ships them all the same, and the card tells the reason.

A record is the folder of a run of 'dust3r_ros train', or a JSON file with steps, pairs, minutes, device, recipe and, where it was not
generated scenes alone, data. Of runs that continued one another's weights give each.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from dust3r_ros.errors import Dust3rError

PAIRS, SEED, SIZE = 512, 0, 320  # the fixed set: figures of different ones are not comparable


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="exported weights (.safetensors)")
    parser.add_argument("--record", type=Path, required=True, action="append", help="a run's folder, or JSON; may be given often")
    parser.add_argument("--device", default="a CPU", help="what the runs whose folders are given ran on")
    parser.add_argument("--force", metavar="REASON", default="", help="ship them though they are not better; the card says why")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"held-out pairs (default {PAIRS}; fewer are for trying out)")
    parser.add_argument("--kitchen", type=Path, help="folder of 7-Scenes' red kitchen: its path counts too")
    given = parser.parse_args(arguments)
    try:
        _ship(given)
    except Dust3rError as error:
        print(f"ship_nano: {error}", file=sys.stderr)
        return 1
    return 0


def _ship(given: argparse.Namespace) -> None:
    from rich.console import Console

    from dust3r_ros.training.evaluation import shipping
    from dust3r_ros.training.evaluation.data import chosen_sets, held_out_source
    from dust3r_ros.training.evaluation.sequence_run import chosen_sequences
    from dust3r_ros.training.evaluation.table import rich_table
    from dust3r_ros.training.evaluation.training_record import combined, read_record

    record = combined([read_record(path, given.device) for path in given.record])
    data = chosen_sets(("held_out", "motorcycle"), given.pairs, SEED, SIZE, None, lambda: held_out_source(SEED, SIZE))
    again = ["evaluate", "dust3r_nano", "flow", "--data", "held_out", "--data", "motorcycle", "--pairs", str(given.pairs), "--sequences"]
    again += ["--device", "cpu", "--precision", "float32"]
    again += ["--kitchen", "DIR"] if given.kitchen else []
    settings = {"pairs": given.pairs, "seed": SEED, "size": SIZE, "calibrated": False}
    console = Console(highlight=False)
    with console.status("measuring") as status:
        done = shipping.ship(
            given.weights, record, data, chosen_sequences(given.kitchen), settings, shlex.join(["dust3r_ros", *again]), given.force,
            advance=lambda text, count: status.update(f"{text}: {count}"),
        )  # fmt: skip
    console.print(rich_table(done.rows))
    console.print(f"shipped {done.weights.name} ({done.weights.stat().st_size / 1e6:.0f} MB) with its figures and card; {done.reason}")


if __name__ == "__main__":
    sys.exit(main())
