"""`dust3r_ros train` as a user runs it: on a folder of RGB-D, stopped, gone on with, exported; and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.networks import SMALL, small_weights
from support.rgbd_folder import rgbd_folder
from typer.testing import CliRunner

from dust3r_ros.cli import app
from dust3r_ros.errors import Dust3rError
from dust3r_ros.network import load_network
from dust3r_ros.training.records import LOSSES, Table

RECIPE = """
network: {{weights: {weights}}}
data:
  source: rgbd
  sizes: [64x48]
  batch: 2
  rgbd: {{folder: {folder}, intrinsics: [130, 130, 79.5, 59.5], every: 1, overlap: [0.3, 0.98], held_out: 0.25}}
optimiser: {{warm_up: 2}}
schedule: {{steps: 6}}
hardware: {{device: cpu, precision: float32}}
records: {{log_every: 1, validate_every: 3, validation_batches: 1, save_every: 3, pictures: 1}}
"""


def _run(*words: str) -> str:
    result = CliRunner().invoke(app, ["train", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    settings = rgbd_folder(tmp_path / "rgbd")
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(weights=small_weights(tmp_path, SMALL), folder=settings.folder))
    return file


def _losses(folder: Path) -> list[tuple[str, ...]]:
    return [(row["step"], row["learning_rate"], row["loss"], row["gradient_norm"]) for row in Table(folder / "losses.csv", LOSSES).rows()]


def test_resumed_run_has_the_losses_of_the_unbroken_one(tmp_path: Path, recipe: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _run("--config", str(recipe), "--output", str(whole))
    _run("--config", str(recipe), "--output", str(broken))
    (broken / "checkpoints/step_000000006.safetensors").unlink()  # as if it had been killed after step 3's
    _run("--config", str(recipe), "--output", str(broken), "--resume", "auto")
    assert _losses(broken) == _losses(whole)
    assert len(_losses(whole)) == 6
    for name in ("weights.safetensors", "held_out.csv", "curves.png", "samples/step_000000006.png", "recipe.yaml"):
        assert (broken / name).stat().st_size > 0
    _run("export", str(whole), str(tmp_path / "exported.safetensors"))
    assert load_network(tmp_path / "exported.safetensors").config == SMALL


def test_pictures_of_a_folder_teach_one_by_one_before_pairs(tmp_path: Path, recipe: Path) -> None:
    config = replace(SMALL, patch_size=16, head="camera", match_width=8, detail_width=8, tracked=True)
    weights = small_weights(tmp_path, config)
    changes = (f"network.weights={weights}", "objective.alone=0.5", "objective.geometry=0.6", "data.pictures=6", "schedule.steps=4")
    _run("--config", str(recipe), "--output", str(tmp_path / "run"), *(word for change in changes for word in ("--set", change)))
    rows = Table(tmp_path / "run/losses.csv", LOSSES).rows()
    assert [row["objective"] for row in rows] == ["alone", "alone", "pointmaps", "pointmaps"]
    assert [int(row["pairs"]) for row in rows] == [0, 0, 2, 4]
    assert load_network(tmp_path / "run/weights.safetensors").config == config


def test_refusals_say_what_to_do(tmp_path: Path, recipe: Path) -> None:
    output = ("--output", str(tmp_path / "run"))
    with pytest.raises(Dust3rError, match="train needs a recipe"):
        _run(*output)
    with pytest.raises(Dust3rError, match="says nothing of a picture alone: set it to 0"):
        _run("--config", str(recipe), *output, "--set", "objective.alone=0.5")
    with pytest.raises(Dust3rError, match="give one of them"):
        _run("--config", str(recipe), *output, "--resume", "auto", "--weights", str(recipe))
    with pytest.raises(Dust3rError, match="give them with --weights"):
        _run("--config", str(recipe), *output, "--start-step", "5")
    with pytest.raises(Dust3rError, match=r"schedule is over at step 6"):
        _run("--config", str(recipe), *output, "--weights", str(small_weights(tmp_path, SMALL)), "--start-step", "6")
    with pytest.raises(Dust3rError, match=r"'data.sizes' has '72x48', but the network has patches of 16 pixels: give 64x48"):
        _run("--config", str(recipe), *output, "--set", "data.sizes=[72x48]")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/step_000000001.safetensors").write_bytes(b"")
    with pytest.raises(Dust3rError, match="holds a run already"):
        _run("--config", str(recipe), *output)
    with pytest.raises(Dust3rError, match="not one of the 1 checkpoints"):
        _run("--config", str(recipe), *output, "--resume", "auto")
