"""What becomes the shipped model: the better one, with its figures and a card that says what was recorded."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.networks import SMALL, small_network

from dust3r_ros.models import shipped
from dust3r_ros.models.verdict import HEADLINES
from dust3r_ros.network import NetworkConfig, TwoViewNetwork, load_network, save_network
from dust3r_ros.simulation import room_sequence
from dust3r_ros.training.evaluation.data import DataSet, motorcycle_pair, room_pairs
from dust3r_ros.training.evaluation.sequence_run import TrueSequence
from dust3r_ros.training.evaluation.shipping import Shipped, ShippingError, ship
from dust3r_ros.training.evaluation.training_record import RecordError, TrainingRecord, combined, read_record
from dust3r_ros.training.evaluation.truth import TrueView

RECORD = TrainingRecord(5000, 80_000, 75.0, "2 CPU cores", "dust3r_nano_cpu", more={"last_loss": 0.31})
DATA = [
    DataSet("held_out", "", lambda: room_pairs(1, seed=5, size=64)),
    DataSet("motorcycle", "", motorcycle_pair),
]


def walk() -> list[TrueView]:
    return [TrueView(v.stamp, v.image, v.camera, v.pose, v.depth) for v in room_sequence(4, 96, 72)]


def weights(folder: Path, seed: int = 0, config: NetworkConfig = SMALL) -> Path:
    path = folder / f"trained_{seed}.safetensors"
    save_network(small_network(config, seed), path)
    return path


def shipped_now(file: Path, package: Path, force: str = "") -> Shipped:
    return ship(file, RECORD, DATA, [TrueSequence("walk", "", walk)], {"pairs": 1}, "dust3r_ros evaluate", force, package)


def test_weights_figures_and_card_go_into_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "models"
    package.mkdir()
    done = shipped_now(weights(tmp_path), package)
    assert sorted(file.name for file in package.iterdir()) == sorted([shipped.WEIGHTS, shipped.SCORES, shipped.CARD])
    state, original = load_network(done.weights).state_dict(), small_network(SMALL).state_dict()
    assert all(torch.equal(state[key], original[key].half().float()) for key in original if ".layer_rn." not in key)
    monkeypatch.setattr(shipped, "folder", lambda: package)
    told = shipped.shipped_scores()
    assert told is not None
    figures = shipped.figures_of(told)
    assert set(figures) == {"dust3r_nano", "flow"}
    assert all((headline.data, headline.measure) in figures["flow"] for headline in HEADLINES if headline.data != "kitchen_walk")
    better = shipped.nano_or_flow()
    assert better is not None
    assert better.model == "flow"  # the weights are random numbers
    card = done.weights.with_name(shipped.CARD).read_text()
    for words in (
        "5,000",
        "80,000",
        "75 minutes on 2 CPU cores",
        "dust3r_nano_cpu",
        "last loss | 0.31",
        "Apache-2.0",
        "Where it fails",
        "**flow**",
    ):
        assert words in card, words
    assert "| held-out depth AbsRel under 0.06 | no |" in card
    assert "It replaced" not in card

    # The same once more is not better; with a reason it goes in all the same, and the card tells.
    before = done.weights.read_bytes()
    with pytest.raises(ShippingError, match=r"are not better than the shipped ones: held-out depth AbsRel .*, before .*; train on"):
        shipped_now(weights(tmp_path, seed=0), package)
    assert done.weights.read_bytes() == before
    shipped_now(weights(tmp_path, seed=0), package, force="a test of force")
    assert "for this reason: a test of force" in done.weights.with_name(shipped.CARD).read_text()
    assert "shipped before" not in done.weights.with_name(shipped.SCORES).read_text()


def test_a_model_of_an_earlier_architecture_is_compared_by_the_figures_it_was_shipped_with(tmp_path: Path) -> None:
    """Its file has a tensor that nothing takes any more."""
    package = tmp_path / "models"
    package.mkdir()
    done = shipped_now(weights(tmp_path), package)
    with safe_open(done.weights, "pt") as file:
        tensors, words = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    tensors["dec_blocks.0.gone.weight"] = torch.ones(3)
    del tensors["dec_norm.weight"]
    save_file(tensors, done.weights, words)
    scores = done.weights.with_name(shipped.SCORES)
    told = json.loads(scores.read_text())
    for row in told["rows"]:
        row.update(depth_abs_rel=0.001)
    scores.write_text(json.dumps({**told, "settings": {**told["settings"], "pairs": 77}}))
    with pytest.raises(ShippingError, match="of an earlier architecture"):
        shipped_now(weights(tmp_path), package)
    scores.write_text(json.dumps(told))
    with pytest.raises(ShippingError, match=r"held-out depth AbsRel .*, before 0\.001"):
        shipped_now(weights(tmp_path), package)
    shipped_now(weights(tmp_path), package, force="a test of force")
    load_network(done.weights)


def test_what_is_too_large_for_the_package(tmp_path: Path) -> None:
    wide = replace(SMALL, encoder_width=768, encoder_depth=3, encoder_heads=12)
    path = tmp_path / "wide.safetensors"
    save_network(TwoViewNetwork(wide), path, torch.float16)
    left = tmp_path / ".shipping_killed"
    left.mkdir()
    (left / shipped.WEIGHTS).touch()
    with pytest.raises(ShippingError, match=r"take 4\d MB in float16, the package has room for 40"):
        shipped_now(path, tmp_path)
    assert not (tmp_path / shipped.WEIGHTS).exists()
    assert not list(tmp_path.glob(".shipping_*"))  # nor what a run that was killed has left


def test_a_record_that_lacks_something() -> None:
    words = {"steps": 3, "pairs": 48, "minutes": 0.5, "device": "a CPU", "recipe": "small"}
    assert TrainingRecord.of(words, "x") == TrainingRecord(3, 48, 0.5, "a CPU", "small")
    assert TrainingRecord.of({**words, "loss": 1.5, "curve": [1, 2]}, "x").more == {"loss": 1.5}
    with pytest.raises(RecordError, match="lacks pairs, device"):
        TrainingRecord.of({"steps": 3, "minutes": 0.5, "recipe": "small"}, "record.json")
    with pytest.raises(RecordError, match="are numbers"):
        TrainingRecord.of({**words, "steps": "many"}, "record.json")
    with pytest.raises(RecordError, match="an object"):
        TrainingRecord.of([], "record.json")


def test_the_record_of_a_runs_folder_and_of_runs_that_continued_it(tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_text("step,minutes,pairs\n1,0.5,16\n40,20.0,640\n")
    (tmp_path / "recipe.yaml").write_text(
        "network: {model: dust3r_nano}\ndata: {source: generated, sizes: [128x96, 224x160], batch: 8, accumulate: 2}\n"
    )
    first = read_record(tmp_path, "a laptop")
    assert (first.steps, first.pairs, first.minutes, first.device) == (40, 640, 20.0, "a laptop")
    assert first.recipe == "dust3r_nano, 128x96, 224x160 pixels, batches of 16"
    assert "generated scenes alone" in first.data
    both = combined([first, TrainingRecord(60, 960, 10.0, "an H200", first.recipe)])
    assert (both.steps, both.pairs, both.minutes) == (100, 1600, 30.0)
    assert (both.device, both.recipe) == ("a laptop; then an H200", first.recipe)
    (tmp_path / "losses.csv").unlink()
    with pytest.raises(RecordError, match=r"losses\.csv and recipe\.yaml of a run are expected"):
        read_record(tmp_path, "a laptop")


def test_the_tool_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "ship_nano.py"))["main"]
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"steps": 1}))
    for file, words in ((tmp_path / "no.json", "cannot be read"), (record, "lacks pairs, minutes, device, recipe")):
        assert main(["none.safetensors", "--record", str(file)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("ship_nano: training record")
        assert words in said
