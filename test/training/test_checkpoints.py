"""Checkpoints: whole or not at all, refused by name when they are not what was written."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.plane_pairs import PlanePairs
from support.training import recipe_with, run_loop, tiny_state

from dust3r_ros.io.atomic import OutputError
from dust3r_ros.network import load_network
from dust3r_ros.training.checkpoint_folder import CheckpointFolder
from dust3r_ros.training.checkpoints import CheckpointRefusedError, TrainingCheckpoint, read_checkpoint, write_checkpoint
from dust3r_ros.training.export import export_checkpoint


def _checkpoint(step: int = 5, size: int = 1000) -> TrainingCheckpoint:
    return TrainingCheckpoint(step, 0, 80, 1.5, {"seed": 1}, {"head_type": "linear"}, {"weights/a": torch.arange(size).float()})


def _written(folder: Path, step: int = 5) -> Path:
    return CheckpointFolder(folder).write(_checkpoint(step))


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    found = read_checkpoint(_written(tmp_path))
    assert (found.step, found.pairs, found.minutes) == (5, 80, 1.5)
    assert (found.recipe, found.network) == ({"seed": 1}, {"head_type": "linear"})
    assert torch.equal(found.under("weights")["a"], torch.arange(1000).float())


@pytest.mark.parametrize(("recipe", "pairs"), [({"data": {"batch": 16, "accumulate": 2}}, 160), ({"seed": 1}, 0)])
def test_pairs_of_one_that_does_not_say_them_follow_from_its_recipe(tmp_path: Path, recipe: dict[str, object], pairs: int) -> None:
    path = _written(tmp_path)
    with safe_open(path, framework="pt") as file:
        words = json.loads(file.metadata()["checkpoint"])
    del words["pairs"]
    save_file(load_file(path), path, metadata={"checkpoint": json.dumps({**words, "recipe": recipe})})
    assert read_checkpoint(path).pairs == pairs


@pytest.mark.parametrize("kept", [0, 10, 2000])
def test_cut_short_is_refused_by_name(tmp_path: Path, kept: int) -> None:
    path = _written(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointRefusedError, match=rf"{path.name}: damaged, cut short.*--resume auto"):
        read_checkpoint(path)


def test_one_altered_bit_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path)
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointRefusedError, match="checksum differs"):
        read_checkpoint(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, weights)
    with pytest.raises(CheckpointRefusedError, match="no training run; start from it with '--weights'"):
        read_checkpoint(weights)
    save_file(load_file(_written(tmp_path)), weights, metadata={"checkpoint": '{"format": "of others", "version": 7}'})
    with pytest.raises(CheckpointRefusedError, match="'of others' of version 7"):
        read_checkpoint(weights)
    with pytest.raises(CheckpointRefusedError, match="there is no such file"):
        read_checkpoint(tmp_path / "none.safetensors")


def test_auto_takes_the_newest_that_is_whole_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.newest() is None
    _written(tmp_path, 5)
    newer = _written(tmp_path, 6)
    newer.write_bytes(newer.read_bytes()[:100])
    found = folder.newest()
    assert found is not None
    assert found.step == 5
    assert newer.name in caplog.text
    folder.files()[0].unlink()
    with pytest.raises(CheckpointRefusedError, match="not one of the 1 checkpoints"):
        folder.newest()


def test_last_two_and_milestones_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, milestone_every=4)
    for step in range(2, 11):
        folder.write(_checkpoint(step))
    assert [read_checkpoint(file).step for file in folder.files()] == [4, 8, 9, 10]


def test_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    path = _written(tmp_path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OutputError, match="free some space"):
            write_checkpoint(_checkpoint(size=10_000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_training_goes_on_when_a_save_in_between_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = recipe_with(records={"save_every": 2}, schedule={"steps": 4})
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(OutputError):  # the last save is the one that must not fail
        run_loop(recipe, tiny_state(recipe), PlanePairs(), tmp_path)
    assert "step 2 is not saved, training goes on" in caplog.text


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from dust3r_ros.training.checkpoint_folder import CheckpointFolder
from dust3r_ros.training.checkpoints import TrainingCheckpoint

def checkpoint(step):
    return TrainingCheckpoint(step, 0, 0, 0.0, {}, {}, {"weights/a": torch.zeros(1000) + step})

folder = CheckpointFolder(Path(sys.argv[1]))
folder.write(checkpoint(1))
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)  # after the bytes, before the name
folder.write(checkpoint(2))
"""


def test_kill_while_it_is_written_costs_that_one_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    folder = CheckpointFolder(tmp_path)
    found = folder.newest()
    assert found is not None
    assert found.step == 1
    assert len(list(tmp_path.iterdir())) == 2  # what was half written is there under a name of its own
    folder.remove_unfinished()
    assert len(list(tmp_path.iterdir())) == 1


def test_exported_weights_are_the_average(tmp_path: Path) -> None:
    recipe = recipe_with(schedule={"steps": 3})
    state = tiny_state(recipe)
    run_loop(recipe, state, PlanePairs(), tmp_path)
    checkpoint = CheckpointFolder(tmp_path / "checkpoints").newest()
    assert checkpoint is not None
    export_checkpoint(checkpoint, tmp_path / "weights.safetensors", torch.float32)
    network = load_network(tmp_path / "weights.safetensors")
    average = dict(state.average.network.named_parameters())
    for name, value in network.named_parameters():
        assert torch.equal(value, average[name]), name
    assert not torch.equal(network.decoder_embed.weight, state.network.decoder_embed.weight)
