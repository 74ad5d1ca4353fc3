"""The model inside the package: found there, run by its name, and taken by `auto` when its figures speak for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.shipped import GOOD, LOST, POOR, STRAIGHT, scores, ship

from dust3r_ros.estimators import EstimatorError, create_estimator
from dust3r_ros.estimators.choice import choose
from dust3r_ros.geometry import Camera
from dust3r_ros.models import shipped
from dust3r_ros.models.verdict import HEADLINES, MOST_ATE, not_better, verdict


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path)
    return tmp_path


def figures(**sets: dict[str, float | None]) -> dict[tuple[str, str], float | None]:
    return {(data, name): value for data, values in sets.items() for name, value in values.items()}


def test_the_package_knows_where_its_files_lie() -> None:
    assert (shipped.folder() / "__init__.py").is_file()
    assert shipped.folder().name == "models"


def test_what_this_build_ships_is_whole() -> None:
    """Nothing, or weights with figures of them and of flow, and a card."""
    weights, told = shipped.shipped_weights(), shipped.shipped_scores()
    if weights is None:
        assert shipped.nano_or_flow() is None
        return
    assert told is not None
    assert {"flow", shipped.NANO} <= set(shipped.figures_of(told))
    assert weights.stat().st_size < 40e6
    assert (shipped.folder() / shipped.CARD).is_file()
    assert shipped.nano_or_flow() is not None


def test_the_shipped_figures_are_those_of_the_shipped_weights() -> None:
    """The real network on two real photographs: what the package says of its model is what the model does."""
    pytest.importorskip("skimage")
    from dust3r_ros.training.evaluation.data import chosen_sets
    from dust3r_ros.training.evaluation.run import evaluate

    told = shipped.shipped_scores()
    if told is None:
        pytest.skip("this build ships no model")
    data = chosen_sets(("motorcycle",), 1, 0, 320, None, lambda: pytest.fail("no generated scenes were asked for"))
    rows = evaluate([(shipped.NANO, lambda: create_estimator(shipped.NANO, device="cpu", precision="float32"))], data, [])
    said = shipped.figures_of(told)[shipped.NANO]
    assert rows[0].figures.depth_abs_rel == pytest.approx(said["motorcycle", "depth_abs_rel"], abs=0.005)
    assert rows[0].figures.points_error == pytest.approx(said["motorcycle", "points_error"], abs=0.01)
    assert rows[0].figures.rra_15 == said["motorcycle", "rra_15"] == 1.0


@pytest.mark.usefixtures("folder")
def test_asked_for_by_name_where_none_is_shipped() -> None:
    with pytest.raises(EstimatorError, match="this build ships no dust3r_nano: take 'flow'"):
        create_estimator("dust3r_nano")
    assert choose(device="cpu").model == "flow"
    assert "this build ships no model" in choose(device="cpu").reason


def test_asked_for_by_name(folder: Path) -> None:
    ship(folder)
    estimator = create_estimator("dust3r_nano", device="cpu")
    assert estimator.name == "dust3r_nano"
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    tokens = [estimator.encode(image, Camera.from_fov(64, 48, 60.0)) for _ in range(2)]
    (found,) = estimator.estimate(dict(enumerate(tokens)), [(0, 1)])
    assert found.points_i.shape == (48, 64, 3)
    assert bool(torch.isfinite(found.points_j).all())


def test_auto_takes_the_better_one(folder: Path) -> None:
    ship(folder, scores(dust3r_nano={**GOOD, "walk": STRAIGHT}, flow={**POOR, "walk": STRAIGHT}))
    choice = choose(device="cpu")
    assert (choice.model, choice.weights) == ("dust3r_nano", folder / shipped.WEIGHTS)
    assert "wins 4 and loses 0 of 6 headline figures against flow" in choice.reason
    assert "held-out depth AbsRel 0.050 against 0.400" in choice.reason
    (folder / shipped.SCORES).unlink()
    ship(folder, scores(dust3r_nano={**POOR, "walk": STRAIGHT}, flow={**GOOD, "walk": STRAIGHT}))
    choice = choose(device="cpu")
    assert (choice.model, choice.weights) == ("flow", None)
    assert "wins 0 and loses 4" in choice.reason


@pytest.mark.parametrize("said", [None, scores(dust3r_nano=GOOD), {"format": 99, "rows": []}])
def test_auto_takes_flow_where_nothing_sure_is_known_of_the_model(folder: Path, said: dict | None) -> None:
    ship(folder, said)
    assert choose(device="cpu").model == "flow"


def test_damaged_scores_are_named_and_do_not_end_anything(folder: Path) -> None:
    ship(folder)
    (folder / shipped.SCORES).write_text("{")
    with pytest.raises(shipped.ShippedModelError, match=r"dust3r_nano\.json are damaged .* install the package anew"):
        shipped.nano_or_flow()
    choice = choose(device="cpu")
    assert choice.model == "flow"
    assert "damaged" in choice.reason


# ---- the verdict ---------------------------------------------------------------------------------------------------------------------


def test_better_pairs_do_not_make_up_for_a_lost_path() -> None:
    good, poor = ("nano", figures(**GOOD, walk=LOST)), ("flow", figures(**POOR, walk=STRAIGHT))
    found = verdict(good, poor)
    assert found.model == "flow"
    assert "leaves the path: the walk's ATE 7.00 % against 0.10 %" in found.reason
    within = ("nano", figures(**GOOD, walk={"ate_percent": MOST_ATE, "depth_abs_rel": 0.1}))
    assert verdict(within, poor).model == "nano"
    assert verdict(good, ("flow", figures(**POOR, walk={"ate_percent": 9.0}))).model == "nano"  # where both leave it, the rest decides


def test_a_path_lost_in_the_kitchen_is_lost_too() -> None:
    """Where real pictures were looked at, they count as generated ones do."""
    flow = ("flow", figures(**POOR, walk=STRAIGHT, kitchen_walk={"ate_percent": 4.0}))
    found = verdict(("nano", figures(**GOOD, walk=STRAIGHT, kitchen_walk={"ate_percent": 14.0})), flow)
    assert found.model == "flow"
    assert "wins 4 and loses 1 of 7 headline figures" in found.reason
    assert "leaves the path: the red kitchen's ATE 14.00 % against 4.00 %" in found.reason
    assert verdict(("nano", figures(**GOOD, walk=STRAIGHT, kitchen_walk={"ate_percent": 3.0})), flow).model == "nano"
    before = figures(**POOR, walk={"ate_percent": 7.0, "depth_abs_rel": 0.3}, kitchen_walk={"ate_percent": 4.0})
    assert not_better(figures(**GOOD, walk=STRAIGHT), before) == ["the red kitchen's ATE no result, before 4.00 %"]


def test_a_draw_is_for_what_needs_no_weights() -> None:
    same = figures(**GOOD, walk=STRAIGHT)
    assert verdict(("nano", same), ("flow", same)).model == "flow"


def test_no_result_is_worse_than_any() -> None:
    lost = figures(**GOOD, walk={"ate_percent": None, "depth_abs_rel": 1.0})
    assert verdict(("nano", lost), ("flow", figures(**POOR, walk=LOST))).model == "flow"
    assert HEADLINES[4].text(lost) == "no result"


def test_a_successor_is_better_everywhere_or_perfect() -> None:
    old = figures(**POOR, walk=LOST)
    new = figures(**GOOD, walk={"ate_percent": 0.1, "depth_abs_rel": 0.05})
    assert not_better(new, old) == []
    assert len(not_better(new, new)) == len(HEADLINES) - 1  # nobody looked at the kitchen
    all_right = {**new, ("held_out", "rra_15"): 1.0}
    assert [line for line in not_better(all_right, all_right) if "RRA" in line] == []
    assert not_better({**new, ("held_out", "rta_15"): 0.4}, old) == ["held-out RTA@15 40 %, before 50 %"]
