"""The demo says which model it runs, and shows the shipped one beside flow."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.shipped import GOOD, POOR, STRAIGHT, scores, ship

from dust3r_ros.demo.inputs import DemoError, motorcycle
from dust3r_ros.demo.models import compare_models, draw_models, sentence
from dust3r_ros.estimators.choice import choose
from dust3r_ros.models import shipped


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(shipped, "folder", lambda: folder)
    return folder


def test_the_model_and_the_reason_are_one_sentence(package: Path) -> None:
    assert sentence(choose(device="cpu")).startswith("flow: optical flow")
    ship(package, scores(dust3r_nano={**GOOD, "walk": STRAIGHT}, flow={**POOR, "walk": STRAIGHT}))
    assert sentence(choose(device="cpu")).startswith("dust3r_nano: dust3r_nano wins 4")


@pytest.mark.usefixtures("package")
def test_nothing_to_compare_where_none_is_shipped() -> None:
    assert compare_models(motorcycle()) == []


def test_the_shipped_model_beside_flow(package: Path, tmp_path: Path) -> None:
    ship(package)
    views = motorcycle()
    flow, nano = compare_models(views)
    assert (flow.model, nano.model) == ("flow", "dust3r_nano")
    assert views[0].depth is not None
    assert flow.depth.shape == nano.depth.shape == views[0].depth.shape
    assert flow.error.abs_rel < 0.08  # as the demo asks of it
    assert np.median(flow.depth[flow.depth > 0]) == pytest.approx(np.median(views[0].depth[views[0].depth > 0]), rel=0.1)
    draw_models(tmp_path / "models.png", views[0], [flow, nano])
    picture = cv2.imread(str(tmp_path / "models.png"))
    assert picture.shape[1] > 3 * picture.shape[0]
    with pytest.raises(DemoError, match="without true depth"):
        draw_models(tmp_path / "right.png", views[1], [flow])
