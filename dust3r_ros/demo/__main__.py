"""python -m dust3r_ros.demo [--output FOLDER] [--offline]"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dust3r_ros.demo import run
from dust3r_ros.errors import Dust3rError


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dust3r_ros.demo", description="Map two scenes whose truth is known, and measure.")
    folder = os.environ.get("DUST3R_DEMO_OUTPUT", "demo_output")
    parser.add_argument("--output", type=Path, default=Path(folder), help="folder to write (default $DUST3R_DEMO_OUTPUT or demo_output)")
    parser.add_argument("--offline", action="store_true", help="without ROS: the Mapper straight over the bags")
    given = parser.parse_args(args)
    try:
        run(given.output, given.offline)
    except Dust3rError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
