"""The published architectures: keys, shapes and outputs as the published networks', where the golden files lie beside the project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dust3r_ros.network import TwoViewNetwork

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
NAMES = ("dust3r_224_linear", "dust3r_512_dpt", "mast3r_512_catmlpdpt")

pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="the golden files do not lie beside the project")


@pytest.mark.parametrize("name", NAMES)
def test_the_state_dict_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        ours = {key: "x".join(map(str, value.shape)) for key, value in TwoViewNetwork.from_config(name).state_dict().items()}
    theirs = dict(line.split("\t") for line in (GOLDEN / f"{name}.keys.tsv").read_text().splitlines())
    assert ours == theirs


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_the_golden_ones(name: str) -> None:
    """float32 on a CPU: landscape, portrait and odd token counts; a process of its own, which holds up to 3 GB."""
    script = Path(__file__).parent / "golden.py"
    done = subprocess.run([sys.executable, str(script), name, str(GOLDEN)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) >= 16
    assert {key: error for key, error in errors.items() if not error < 1e-5} == {}
