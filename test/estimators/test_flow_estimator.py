"""The flow estimator on a simulated room whose depth and poses are exactly known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dust3r_ros.estimators import Estimator, EstimatorError, PairPrediction, create_estimator
from dust3r_ros.estimators.flow import FlowEstimator
from dust3r_ros.geometry import Camera, procrustes
from dust3r_ros.models.shipped import nano_or_flow, shipped_weights
from dust3r_ros.simulation import SimulatedView, room_sequence

STEP = 7  # frames between keyframes: about 0.25 m


@pytest.fixture(scope="module")
def room() -> list[SimulatedView]:
    return room_sequence(frames=60, width=320, height=240, seed=1)[0 : 5 * STEP : STEP]


def solve(views: Sequence[SimulatedView], pairs: Sequence[tuple[int, int]]) -> list[PairPrediction]:
    estimator = FlowEstimator()
    return estimator.estimate({k: estimator.encode(view.image, view.camera) for k, view in enumerate(views)}, pairs)


def depth_error(depth: np.ndarray, confidence: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean absolute relative error after median scaling where the confidence is 3 or more, and the share of such pixels."""
    sure = confidence >= 3
    scaled = depth[sure] * np.median(truth[sure] / depth[sure])
    return float(np.mean(np.abs(scaled / truth[sure] - 1))), float(np.mean(sure))


def relative_pose(pair: PairPrediction, own: np.ndarray) -> np.ndarray:
    """Pose of camera j in camera i; `own`: view j's points in its own camera."""
    found = procrustes(own[::8, ::8].reshape(-1, 3), pair.points_j.numpy()[::8, ::8].reshape(-1, 3), with_scale=False)
    return found.matrix


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def test_two_views_give_direction_and_depth(room: list[SimulatedView]) -> None:
    forth, back = solve(room[:2], [(0, 1), (1, 0)])
    for pair, truth in ((forth, room[0]), (back, room[1])):
        error, share = depth_error(pair.points_i.numpy()[..., 2], pair.confidence_i.numpy(), truth.depth)
        assert error < 0.04
        assert share > 0.7
    true = np.linalg.inv(room[0].pose) @ room[1].pose
    found = relative_pose(forth, back.points_i.numpy())
    assert angle(found[:3, 3], true[:3, 3]) < 3
    assert np.degrees(np.arccos((np.trace(found[:3, :3].T @ true[:3, :3]) - 1) / 2)) < 0.2


def test_a_window_stands_on_one_scale_and_each_consecutive_pair_is_revised(room: list[SimulatedView]) -> None:
    predictions = solve(room, [(i, 4) for i in (1, 2, 3)] + [(4, i) for i in (1, 2, 3)])
    found = {(p.i, p.j): p for p in predictions}
    assert {(k, k + 1) for k in range(4)} | {(k + 1, k) for k in range(4)} <= set(found)
    assert len(found) == len(predictions)
    pose, centres = np.eye(4), [np.zeros(3)]
    for k in range(4):
        pose = pose @ relative_pose(found[k, k + 1], found[k + 1, k].points_i.numpy())
        centres.append(pose[:3, 3])
    truth = np.array([view.pose[:3, 3] for view in room])
    aligned = procrustes(np.array(centres), truth)
    assert np.linalg.norm(aligned.apply(np.array(centres)) - truth, axis=1).max() < 0.01 * np.linalg.norm(truth[-1] - truth[0])
    for k in range(4):
        pair = found[k, k + 1]
        sure = pair.confidence_i.numpy() >= 3
        ratio = np.median(room[k].depth[sure] / pair.points_i.numpy()[..., 2][sure])
        assert ratio == pytest.approx(aligned.scale, rel=0.02)


def test_confidence_tells_good_depth_from_bad(room: list[SimulatedView]) -> None:
    pair = solve(room[:3], [(0, 1)])[0]
    confidence, depth = pair.confidence_i.numpy(), pair.points_i.numpy()[..., 2]
    known = confidence > 1
    scale = np.median(room[0].depth[known] / depth[known])
    error = np.abs(depth * scale / room[0].depth - 1)
    order = np.argsort(confidence[known])
    third = len(order) // 3
    assert np.mean(error[known][order[:third]]) > 2 * np.mean(error[known][order[-third:]])


def test_few_sure_points_float_between_two_surfaces(room: list[SimulatedView]) -> None:
    found = {(p.i, p.j): p for p in solve(room[:4], [(i, j) for i in range(4) for j in range(4) if i != j])}
    for k in range(1, 4):
        pair, truth = found[k, k - 1], room[k].depth
        depth, sure = pair.points_i.numpy()[..., 2], pair.confidence_i.numpy() >= 3
        depth = depth * np.median(truth[sure] / depth[sure])
        window = np.ones((7, 7), np.uint8)
        nearest, farthest = cv2.erode(truth, window), cv2.dilate(truth, window)
        between = (depth > 1.1 * nearest) & (depth < 0.9 * farthest)
        assert np.count_nonzero(between & sure) < 0.005 * np.count_nonzero(sure)


def test_the_scale_goes_on_from_call_to_call(room: list[SimulatedView]) -> None:
    estimator = FlowEstimator()
    tokens = [estimator.encode(view.image, view.camera) for view in room]
    before = estimator.estimate({k: tokens[k] for k in (0, 1, 2)}, [(0, 1), (1, 2)])
    after = estimator.estimate({k: tokens[k] for k in (1, 2, 3)}, [(2, 3)])
    old = next(p for p in before if (p.i, p.j) == (1, 2))
    new = next(p for p in after if (p.i, p.j) == (1, 2))
    sure = (old.confidence_i.numpy() >= 3) & (new.confidence_i.numpy() >= 3)
    ratio = new.points_i.numpy()[..., 2][sure] / old.points_i.numpy()[..., 2][sure]
    assert np.median(ratio) == pytest.approx(1, abs=0.02)


def test_the_same_input_gives_the_same_output_bit_for_bit(room: list[SimulatedView]) -> None:
    first = solve(room[:3], [(0, 2), (2, 0)])
    in_the_way = []
    for run in range(6):
        in_the_way.append(np.empty(1 + 4001 * run, np.uint8))  # memory falls elsewhere: some SIMD code rounds by its alignment
        for a, b in zip(first, solve(room[:3], [(0, 2), (2, 0)]), strict=True):
            assert (a.i, a.j) == (b.i, b.j)
            for name in ("points_i", "points_j", "confidence_i", "confidence_j"):
                assert np.array_equal(getattr(a, name).numpy(), getattr(b, name).numpy())


def test_views_that_left_the_window_are_forgotten(room: list[SimulatedView]) -> None:
    estimator = FlowEstimator()
    tokens = [estimator.encode(view.image, view.camera) for view in room]
    for k in range(1, 5):
        estimator.estimate({i: tokens[i] for i in (k - 1, k)}, [(k - 1, k)])
    assert len(tokens[3].features.flows) == 1


def test_what_a_neighbour_told_stays_when_it_has_left(room: list[SimulatedView]) -> None:
    estimator = FlowEstimator()
    tokens = [estimator.encode(view.image, view.camera) for view in room]
    pairs = [(0, 1), (1, 2), (0, 2)]
    before = estimator.estimate({k: tokens[k] for k in (0, 1, 2)}, pairs)
    after = estimator.estimate({k: tokens[k] for k in (1, 2)}, [(1, 2)])
    old, new = (next(p for p in found if (p.i, p.j) == (1, 2)) for found in (before, after))
    alone = FlowEstimator()
    fresh = [alone.encode(room[k].image, room[k].camera) for k in (1, 2)]
    lonely = alone.estimate({1: fresh[0], 2: fresh[1]}, [(1, 2)])[0]
    assert np.mean(new.confidence_i.numpy()) == pytest.approx(np.mean(old.confidence_i.numpy()))
    assert np.mean(new.confidence_i.numpy()) > np.mean(lonely.confidence_i.numpy())


def test_a_camera_that_stops_and_turns_keeps_what_it_knew(room: list[SimulatedView]) -> None:
    """Ten keyframes without any parallax: the depth and its scale go on with the part of the picture that stays in view."""
    camera, still = room[2].camera, room[2]
    estimator = FlowEstimator()
    views = {k: estimator.encode(room[k].image, camera) for k in range(3)}
    estimator.estimate(views, [(0, 1), (1, 2), (0, 2)])
    first = next(p for p in estimator.estimate(views, [(2, 1)]) if (p.i, p.j) == (2, 1))
    scale = np.median(still.depth / first.points_i.numpy()[..., 2])
    for k in range(3, 13):
        rotation = cv2.Rodrigues(np.radians([0.0, 2.0 * (k - 2), 0.0]))[0]
        homography = camera.matrix @ rotation @ np.linalg.inv(camera.matrix)
        views[k] = estimator.encode(cv2.warpPerspective(still.image, homography, (320, 240)), camera)
        views = {key: views[key] for key in sorted(views)[-6:]}
        found = estimator.estimate(views, [(k - 2, k), (k - 1, k)])
    own = next(p for p in found if (p.i, p.j) == (12, 11))
    along = cv2.warpPerspective(still.depth, homography, (320, 240), flags=cv2.INTER_NEAREST)
    truth = along / (camera.rays() @ rotation)[..., 2]
    seen, sure = along > 0, own.confidence_i.numpy() >= 2
    assert np.count_nonzero(seen & sure) > 0.6 * np.count_nonzero(seen)
    ratio = truth[seen & sure] / own.points_i.numpy()[..., 2][seen & sure]
    assert np.median(ratio) == pytest.approx(scale, rel=0.03)
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.03


def test_a_keyframe_index_used_for_another_picture_is_another_picture(room: list[SimulatedView]) -> None:
    estimator = FlowEstimator()
    tokens = [estimator.encode(view.image, view.camera) for view in room[:3]]
    estimator.estimate({0: tokens[0], 1: tokens[1]}, [(0, 1)])
    fresh = FlowEstimator()
    reference = [fresh.encode(view.image, view.camera) for view in (room[0], room[2])]
    expected = fresh.estimate({0: reference[0], 1: reference[1]}, [(0, 1)])[0]
    tokens[0].features.solved = None
    found = estimator.estimate({0: tokens[0], 1: tokens[2]}, [(0, 1)])[0]
    assert np.array_equal(found.points_i.numpy(), expected.points_i.numpy())


def test_cameras_of_different_size_work_together(room: list[SimulatedView]) -> None:
    small = replace_image(room[1], 240, 180)
    pair = solve([room[0], small], [(0, 1)])[0]
    assert pair.points_i.shape == (240, 320, 3)
    assert depth_error(pair.points_i.numpy()[..., 2], pair.confidence_i.numpy(), room[0].depth)[0] < 0.05


def replace_image(view: SimulatedView, width: int, height: int) -> SimulatedView:
    """The view cut to its middle: another size, another principal point, the same pose."""
    x, y = (view.camera.width - width) // 2, (view.camera.height - height) // 2
    camera = view.camera.cropped(x, y, width, height)
    return replace(
        view, image=view.image[y : y + height, x : x + width].copy(), depth=view.depth[y : y + height, x : x + width], camera=camera
    )


def test_a_camera_held_upright_is_no_different(room: list[SimulatedView]) -> None:
    camera = room[0].camera
    upright = Camera(camera.height, camera.width, camera.fy, camera.fx, camera.cy, camera.width - 1 - camera.cx)
    turned = [replace(view, image=np.ascontiguousarray(np.rot90(view.image)), camera=upright) for view in room[:2]]
    pair = solve(turned, [(0, 1)])[0]
    assert pair.points_i.shape == (320, 240, 3)
    error, share = depth_error(pair.points_i.numpy()[..., 2], pair.confidence_i.numpy(), np.rot90(room[0].depth))
    assert error < 0.04
    assert share > 0.7


@pytest.mark.parametrize("size", [64, 160, 320])
def test_the_working_size_is_obeyed(room: list[SimulatedView], size: int) -> None:
    estimator = create_estimator("flow", size)
    tokens = estimator.encode(room[0].image, room[0].camera)
    assert tokens.image.shape == (size * 3 // 4, size, 3)
    assert (tokens.camera.width, tokens.camera.height) == (size, size * 3 // 4)


def test_an_assumed_camera_is_said_once(room: list[SimulatedView], caplog: pytest.LogCaptureFixture) -> None:
    estimator = FlowEstimator()
    with caplog.at_level(logging.WARNING):
        for view in room[:3]:
            estimator.encode(view.image, replace(view.camera, assumed=True))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "62 degrees" in caplog.text


def test_auto_says_what_it_took_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        estimator = create_estimator("auto", 320)
    assert isinstance(estimator, Estimator)
    better = nano_or_flow()
    taken = "flow" if better is None else better.model
    assert estimator.name == taken
    assert f"model auto: {taken} (" in caplog.text
    assert "published" in caplog.text  # why none of those
    assert ("dust3r_nano wins" in caplog.text) == (shipped_weights() is not None)  # and what for or against the shipped one


def test_wrong_requests_are_named(room: list[SimulatedView]) -> None:
    estimator = FlowEstimator()
    tokens = estimator.encode(room[0].image, room[0].camera)
    with pytest.raises(EstimatorError, match=r"no estimator is called 'magic'.*auto, flow"):
        create_estimator("magic")
    with pytest.raises(EstimatorError, match=r"32.*at least 64"):
        create_estimator("flow", 32)
    with pytest.raises(EstimatorError, match=r"\(240, 320\)"):
        estimator.encode(room[0].image[..., 0], room[0].camera)
    with pytest.raises(EstimatorError, match=r"pair \(0, 7\)"):
        estimator.estimate({0: tokens}, [(0, 7)])
    with pytest.raises(EstimatorError, match="another estimator"):
        estimator.estimate({0: tokens, 1: replace(tokens, features=None)}, [(0, 1)])
