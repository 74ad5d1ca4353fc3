"""Models over data of known truth: who tells the truth has no error, who knows nothing is at chance, flow is in between."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.networks import SMALL, small_weights
from typer.testing import CliRunner

from dust3r_ros.cli import app
from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import EstimatorError, PairPrediction, Tokens, create_estimator
from dust3r_ros.estimators.flow import FlowEstimator
from dust3r_ros.geometry import Camera, inverse_pose, transform_points, working_camera
from dust3r_ros.io.trajectory import write_tum
from dust3r_ros.simulation import room_sequence
from dust3r_ros.training.evaluation.data import DataSet, chosen_sets, held_out, held_out_source, motorcycle_pair, pairs_of, room_pairs
from dust3r_ros.training.evaluation.kitchen import KITCHEN_COLOUR, KITCHEN_DEPTH, kitchen_frames, kitchen_pairs, kitchen_views
from dust3r_ros.training.evaluation.pair_run import pair_scores
from dust3r_ros.training.evaluation.run import estimator_of, evaluate, labels_of, models_here
from dust3r_ros.training.evaluation.sequence_run import TrueSequence, backwards, chosen_sequences, sequence_figures, way_figures
from dust3r_ros.training.evaluation.summary import summarise
from dust3r_ros.training.evaluation.table import cells, markdown
from dust3r_ros.training.evaluation.truth import DataError, TruePair, TrueView, overlap, working_truth
from dust3r_ros.training.pairs import PairBatch, View, points_in


class Truthful:
    """Says the truth about views that it knows by their pictures, on a scale of its own; `share`: of the pixels, from the top."""

    name = "truthful"

    def __init__(self, pairs: Sequence[TruePair], size: int, share: float = 1.0) -> None:
        self.views = {view.image.tobytes(): view for pair in pairs for view in (pair.first, pair.second)}
        self.size, self.share = size, share

    def encode(self, image: NDArray[np.uint8], camera: Camera) -> Tokens:
        working = working_camera(camera, self.size)
        small = cv2.resize(image, (working.width, working.height), interpolation=cv2.INTER_AREA)
        return Tokens(camera, working, small, self.views[image.tobytes()])

    def estimate(self, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
        return [self._pair(i, j, views[i], views[j]) for i, j in pairs]

    def _pair(self, i: int, j: int, first: Tokens, second: Tokens) -> PairPrediction:
        sides = [working_truth(tokens.features, tokens) for tokens in (first, second)]
        relative = inverse_pose(first.features.pose) @ second.features.pose
        points = [3.0 * sides[0].points, 3.0 * transform_points(relative, sides[1].points)]
        sure = [np.where(side.known, 9.0, 1.0) for side in sides]
        for confidence in sure:
            confidence[round(self.share * len(confidence)) :] = 1.0
        tensors = [torch.from_numpy(value.astype(np.float32)) for value in (*points, *sure)]
        return PairPrediction(i, j, *tensors)


@pytest.fixture(scope="module")
def room() -> list[TruePair]:
    return list(room_pairs(2, seed=3, size=128))


# ---- the measuring -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_truth_has_no_error(room: list[TruePair], calibrated: bool) -> None:
    figures = summarise(list(pair_scores(Truthful(room, 128), room, calibrated)))
    assert figures.pairs == 4
    assert figures.points_error == pytest.approx(0, abs=1e-6)
    assert figures.depth_abs_rel == pytest.approx(0, abs=1e-6)
    assert (figures.depth_within_25_percent, figures.rra_15, figures.rta_15, figures.coverage) == (1, 1, 1, 1)
    assert figures.focal_error == pytest.approx(0, abs=1e-4)
    assert figures.seconds is not None
    assert figures.seconds > 0


def test_the_truth_at_half_the_size_is_off_by_less_than_a_pixel(room: list[TruePair]) -> None:
    figures = summarise(list(pair_scores(Truthful(room, 64), room)))
    assert figures.points_error == pytest.approx(0, abs=1e-6)  # asked at the very same pixels
    assert figures.focal_error is not None
    assert figures.focal_error < 0.02
    assert (figures.rra_15, figures.rta_15) == (1, 1)


def test_half_the_truth_is_wrong_in_the_other_half(room: list[TruePair]) -> None:
    figures = summarise(list(pair_scores(Truthful(room, 128, share=0.5), room)))
    assert figures.coverage == pytest.approx(0.5)
    assert figures.depth_abs_rel_estimated == pytest.approx(0, abs=1e-6)
    assert figures.depth_abs_rel is not None
    assert figures.depth_within_25_percent is not None
    assert 0.02 < figures.depth_abs_rel < 0.5
    assert 0.5 <= figures.depth_within_25_percent < 1
    assert figures.points_error is not None
    assert 0.3 < figures.points_error < 0.7


def test_nothing_said_is_all_wrong(room: list[TruePair]) -> None:
    figures = summarise(list(pair_scores(Truthful(room, 128, share=0.0), room)))
    blind = [np.median(view.depth) / view.depth for pair in room for view in (pair.first, pair.second)]
    assert figures.depth_abs_rel == pytest.approx(np.mean([np.abs(ratio - 1).mean() for ratio in blind]), rel=1e-5)
    assert figures.coverage == 0
    assert (figures.rra_15, figures.rta_15, figures.focal_error) == (0, 0, 1)
    assert figures.points_error == pytest.approx(1)
    assert (figures.depth_abs_rel_estimated, figures.ause) == (None, None)


def test_flow_and_a_network_that_knows_nothing(room: list[TruePair], tmp_path: Path) -> None:
    data = [DataSet("room", "", lambda: iter(room))]
    weights = small_weights(tmp_path, replace(SMALL, image_size=128))
    models = [("flow", lambda: FlowEstimator(128)), ("small", lambda: estimator_of(str(weights), "cpu", "float32"))]
    flow, small = evaluate(models, data)
    assert [(row.model, row.data) for row in (flow, small)] == [("flow", "room"), ("small", "room")]
    assert flow.parameters == 0
    assert small.parameters > 10_000
    assert flow.figures.points_error is not None
    assert small.figures.points_error is not None
    assert flow.figures.points_error < 0.5 < small.figures.points_error
    assert flow.figures.rra_15 == 1
    assert small.figures.coverage == 1


def test_what_the_truth_does_not_say_is_left_out() -> None:
    """The motorcycle's right view has no depth: its direction gives points of the left view alone, and no depth."""
    (pair,) = motorcycle_pair()
    forward, backward = pair_scores(Truthful([pair], 200), [pair])
    assert forward.points == pytest.approx(0, abs=1e-6)
    assert forward.depth is not None
    assert backward.depth is None
    assert backward.points == pytest.approx(0, abs=1e-6)


# ---- the data ------------------------------------------------------------------------------------------------------------------------


def test_a_batch_is_pictures_cameras_and_poses() -> None:
    view = View(
        images=torch.linspace(-1, 1, 2 * 3 * 4 * 6).reshape(2, 3, 4, 6),
        depth=torch.rand(2, 4, 6) + 1,
        valid=torch.arange(48).reshape(2, 4, 6) % 5 > 0,
        intrinsics=torch.tensor([[5.0, 4.0, 2.5, 1.5], [6.0, 6.0, 2.0, 1.0]]),
        pose=torch.eye(4).repeat(2, 1, 1),
    )
    pairs = pairs_of(PairBatch(view, view))
    assert len(pairs) == 2
    first = pairs[1].first
    assert first.depth is not None
    assert (first.camera.fx, first.camera.cy) == (6.0, 1.0)
    assert np.array_equal(first.depth > 0, view.valid[1].numpy())
    assert first.image[-1, -1].tolist() == [round((float(c) + 1) * 127.5) for c in view.images[1, :, -1, -1]]
    ours = first.camera.unproject(first.camera.pixel_grid()) * first.depth[..., None]
    theirs = points_in(view, view.pose)[1].numpy()
    assert np.allclose(ours[first.depth > 0], theirs[first.depth > 0], atol=1e-5)


def test_held_out_scenes_are_the_same_each_time_and_not_those_of_training() -> None:
    from dust3r_ros.training.scenes import GeneratedPairs

    source = held_out_source(0, 64)
    once, again = (list(held_out(source, 3)) for _ in range(2))
    assert len(once) == 3
    assert all(np.array_equal(a.second.image, b.second.image) for a, b in zip(once, again, strict=True))
    assert len({pair.first.image.tobytes() + pair.second.image.tobytes() for pair in once}) == 3
    assert isinstance(source, GeneratedPairs)
    assert source.split == "held_out"
    for pair in once:
        assert pair.first.depth is not None
        assert (pair.first.depth > 0).mean() > 0.3


def test_the_rooms_pairs_overlap_and_follow_the_seed(room: list[TruePair]) -> None:
    again = list(room_pairs(2, seed=3, size=128))
    assert all(np.array_equal(a.first.image, b.first.image) for a, b in zip(room, again, strict=True))
    assert not np.array_equal(next(room_pairs(1, seed=4, size=128)).first.image, room[0].first.image)
    for pair in room:
        assert overlap(pair.first, pair.second, step=4) > 0.3
        assert overlap(pair.first, pair.first, step=4) == 1


def write_kitchen(folder: Path, frames: int = 4) -> list[TrueView]:
    """The simulated room in the red kitchen's layout: its colour camera's pictures and its depth camera's depth."""
    folder.mkdir()
    sequence = room_sequence(frames, 160, 120)
    colour, depth = KITCHEN_COLOUR.resized(160, 120), KITCHEN_DEPTH.resized(80, 60)
    scene = sequence._scene()
    views = []
    for k in range(frames):
        pose = sequence.pose(k)
        picture = np.clip(scene.radiance(colour, pose) * 255, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{3 * k:06d}.jpg"), picture[..., ::-1])
        cv2.imwrite(str(folder / f"{3 * k:06d}.depth.png"), np.rint(scene.depth(depth, pose) * 1000).astype(np.uint16))
        views.append(TrueView(round(3 * k / 30 * 1e9), picture, colour, pose, scene.depth(colour, pose)))
    write_tum(folder / "groundtruth.tum", [(view.stamp, view.pose) for view in views])
    return views


def test_the_kitchens_layout(tmp_path: Path) -> None:
    true = write_kitchen(tmp_path / "kitchen")
    read = kitchen_views(tmp_path / "kitchen")
    assert len(read) == len(true)
    for a, b in zip(read, true, strict=True):
        assert np.allclose(a.pose, b.pose, atol=1e-6)
        assert a.depth is not None
        assert b.depth is not None
        known = a.depth > 0
        assert known.mean() > 0.75  # the depth camera sees less to the sides
        assert np.median(np.abs(a.depth - b.depth)[known]) < 0.01
    pairs = list(kitchen_pairs(tmp_path / "kitchen", 3, seed=1))
    assert len(pairs) == 3
    assert all(overlap(pair.first, pair.second) >= 0.3 for pair in pairs)
    (tmp_path / "kitchen" / "000003.jpg").unlink()
    assert len(kitchen_frames(tmp_path / "kitchen")) == 3
    with pytest.raises(DataError, match=r"no groundtruth\.tum"):
        kitchen_frames(tmp_path)


@pytest.mark.parametrize(
    ("names", "pairs", "size", "words"),
    [
        (["held_in"], 1, 64, "no data set is called 'held_in': choose of held_out, room, motorcycle, and kitchen with --kitchen DIR"),
        (["kitchen"], 1, 64, "with --kitchen DIR"),
        (["room"], 0, 64, "give 1 pair or more"),
        (["room"], 1, 32, "64 pixels or more"),
    ],
)
def test_data_that_is_not_there(names: list[str], pairs: int, size: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        chosen_sets(names, pairs, 0, size, None, lambda: held_out_source(0, 64))


# ---- sequences -----------------------------------------------------------------------------------------------------------------------


def walk(frames: int) -> list[TrueView]:
    return [TrueView(v.stamp, v.image, v.camera, v.pose, v.depth) for v in room_sequence(frames, 160, 120)]


def test_a_sequence_is_mapped_both_ways_and_measured_as_in_the_demo() -> None:
    done, estimator, views = count(), create_estimator("flow", 160), walk(16)
    figures = sequence_figures(estimator, TrueSequence("walk", "", lambda: views), lambda: next(done))
    assert next(done) == 32
    assert (figures.pairs, figures.placed) == (32, 1)
    assert figures.ate_percent is not None
    assert figures.ate_percent < 3
    assert figures.coverage is not None
    assert figures.depth_abs_rel_estimated is not None
    assert figures.depth_abs_rel is not None
    assert figures.depth_abs_rel_estimated < min(0.1, figures.depth_abs_rel)
    assert figures.depth_abs_rel < 0.5
    there, back = way_figures(estimator, views).ate_percent, way_figures(estimator, backwards(views)).ate_percent
    assert there is not None
    assert back is not None
    assert there != back
    assert figures.ate_percent == pytest.approx((there + back) / 2)


def test_backwards_takes_the_same_time() -> None:
    views = walk(4)
    found = backwards(views)
    assert [view.stamp for view in found] == [view.stamp for view in views]
    assert [view.image is other.image for view, other in zip(found, reversed(views), strict=True)] == [True] * 4


def test_a_sequence_that_nobody_calibrated_tells_no_camera() -> None:
    """A camera of half its focal length, told, bends the path; not told, it is no matter."""
    views = walk(16)
    wrong = [replace(v, camera=replace(v.camera, fx=v.camera.fx / 2, fy=v.camera.fy / 2)) for v in views]
    estimator = create_estimator("flow", 160)
    told, untold = (way_figures(estimator, wrong, calibrated) for calibrated in (True, False))
    assert untold == replace(way_figures(estimator, views, False), seconds=untold.seconds)
    assert told.depth_abs_rel != untold.depth_abs_rel


def test_a_sequence_that_cannot_be_mapped_has_no_path() -> None:
    still = walk(1)[0]
    views = [replace(still, stamp=still.stamp + k * 10**8) for k in range(5)]
    figures = sequence_figures(create_estimator("flow", 160), TrueSequence("still", "", lambda: views))
    assert (figures.ate_percent, figures.placed, figures.depth_abs_rel, figures.coverage) == (None, 0, None, None)


def test_the_kitchens_sequence_comes_with_its_folder(tmp_path: Path) -> None:
    assert [sequence.name for sequence in chosen_sequences(None)] == ["walk"]
    assert [(sequence.name, sequence.calibrated) for sequence in chosen_sequences(tmp_path)] == [("walk", True), ("kitchen_walk", False)]


# ---- the table and the command -------------------------------------------------------------------------------------------------------


def test_models_by_name_and_by_file(tmp_path: Path) -> None:
    assert models_here()[0] == "flow"
    assert labels_of(["flow", "a/best.pth", "b/best.pth", "c/last.pth"]) == ["flow", "a/best.pth", "b/best.pth", "last"]
    assert estimator_of(str(small_weights(tmp_path)), "cpu").name == "small"
    with pytest.raises(EstimatorError, match="'no_such' is no model and no file of weights"):
        estimator_of("no_such")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dust3r_ros.cli", "evaluate", *arguments], capture_output=True, text=True, check=False)


def test_the_command_writes_one_table(tmp_path: Path) -> None:
    table, figures = tmp_path / "table.md", tmp_path / "figures.json"
    done = run("flow", str(small_weights(tmp_path)), "--data", "motorcycle", "--markdown", str(table), "--json", str(figures))
    assert done.returncode == 0, done.stderr
    told = json.loads(figures.read_text())
    assert [(row["data"], row["model"]) for row in told["rows"]] == [("motorcycle", "flow"), ("motorcycle", "small")]
    assert str(tmp_path) not in told["command"]
    assert told["settings"]["pairs"] == 64
    header, rule, *lines = table.read_text().splitlines()
    assert {line.count("|") for line in (header, rule, *lines)} == {header.count("|")}
    assert len(lines) == 2
    for word in ("flow", "small", "AbsRel", "RTA@15", f"{told['rows'][0]['depth_abs_rel']:.3f}"):
        assert word in done.stdout
        assert word in table.read_text()
    assert "ATE" not in header  # nothing to say without a sequence


@pytest.mark.slow
def test_compiled_a_model_has_the_same_figures(tmp_path: Path) -> None:
    weights, told = str(small_weights(tmp_path)), []
    for extra in ([], ["--compile"]):
        figures = tmp_path / "figures.json"
        done = run(weights, "--data", "motorcycle", "--device", "cpu", "--precision", "float32", "--json", str(figures), *extra)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(figures.read_text()))
    assert [each["settings"]["compiled"] for each in told] == [False, True]
    plain, compiled = (each["rows"][0] for each in told)
    assert compiled["depth_abs_rel"] == pytest.approx(plain["depth_abs_rel"], rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody",), "'nobody' is no model"),
        (("flow", "--data", "nothing"), "no data set is called 'nothing'"),
        (("flow", "--kitchen", "/nowhere"), "it has no groundtruth.tum"),
        (("flow", "--data", "motorcycle", "--json", "/no/such/folder/x.json"), "there is no folder /no/such/folder"),
    ],
)
def test_the_command_refuses(arguments: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", *arguments])
    assert isinstance(done.exception, Dust3rError)  # which the command's main() says in one line
    assert words in str(done.exception)


def test_an_empty_cell_is_a_dash(room: list[TruePair]) -> None:
    def one() -> Iterator[TruePair]:
        yield room[0]

    rows = evaluate([("flow", lambda: FlowEstimator(128))], [DataSet("room", "", one)])
    headers, texts = cells(rows)
    assert "ATE" not in headers
    assert markdown(rows).count("\n") == 3
    assert len(texts[0]) == len(headers)
