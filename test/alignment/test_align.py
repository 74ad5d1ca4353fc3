"""The start of global alignment: pairs on scales of their own become one scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.alignment import Alignment, AlignmentError, align, objective, world_points
from dust3r_ros.alignment.spanning_tree import score, spanning_forest
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.scene_graph import SceneGraph
from dust3r_ros.simulation import SimulatedView, room_sequence

COUNT = 6


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(frames=30, width=80, height=60, seed=3))[::5]


def predict(views: list[SimulatedView], graph: str = "swin-2", both: bool = True, **errors: object) -> tuple[list[PairPrediction], dict]:
    estimator = SimulatedEstimator(views, **errors)  # type: ignore[arg-type]
    tokens = {index: estimator.encode(view.image, view.camera) for index, view in enumerate(views)}
    return estimator.estimate(tokens, SceneGraph.parse(graph).pairs(range(len(views)), both)), tokens


def relative_errors(alignment: Alignment, views: list[SimulatedView]) -> tuple[float, float]:
    """Largest rotation error (radians) and position error as a share of the path's extent, with image 0 as the frame and one scale."""
    true = np.stack([views[n].pose for n in alignment.images])
    true = np.linalg.inv(true[0]) @ true
    found = np.linalg.inv(alignment.poses[0]) @ alignment.poses
    scale = (true[:, :3, 3] * found[:, :3, 3]).sum() / (found[:, :3, 3] ** 2).sum()
    trace = np.einsum("nij,nij->n", true[:, :3, :3], found[:, :3, :3])
    angles = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    return float(angles.max()), float(np.abs(scale * found[:, :3, 3] - true[:, :3, 3]).max() / np.ptp(true[:, :3, 3], axis=0).max())


@pytest.mark.parametrize(("graph", "both"), [("swin-2", True), ("complete", False), ("oneref-0", True)])
def test_true_pairs_on_any_scale_give_the_true_scene(views: list[SimulatedView], graph: str, both: bool) -> None:
    predictions, tokens = predict(views, graph, both)
    centres = {n: (t.camera.cx, t.camera.cy) for n, t in tokens.items()}
    alignment = align(predictions, principal_points=centres)
    assert alignment.images == tuple(range(COUNT))
    rotation, position = relative_errors(alignment, views)
    assert rotation < 2e-3
    assert position < 5e-3
    np.testing.assert_allclose(alignment.focals, tokens[0].camera.fx, rtol=1e-3)
    ratios = np.concatenate([(d.numpy() / tokens[n].features[0])[d.numpy() > 0] for n, d in enumerate(alignment.depths)])
    np.testing.assert_allclose(ratios, np.median(ratios), rtol=0.01)
    assert alignment.objective < 1e-2


def test_noise_and_outliers_bend_it_only_a_little(views: list[SimulatedView]) -> None:
    predictions, tokens = predict(views, noise=0.03, outliers=0.02)
    centres = {n: (t.camera.cx, t.camera.cy) for n, t in tokens.items()}
    rotation, position = relative_errors(align(predictions, principal_points=centres), views)
    assert rotation < 0.01
    assert position < 0.03


def test_the_tree_goes_round_a_pair_that_knows_nothing(views: list[SimulatedView]) -> None:
    wrong = [(0, 1), (1, 0), (2, 3), (3, 2)]
    predictions, tokens = predict(views, wrong_pairs=wrong)
    pairs = [(p.i, p.j) for p in predictions]
    tree = spanning_forest(pairs, [score(p) for p in predictions])[0]
    assert not {pairs[k] for _, _, k in tree.links} & set(wrong)
    centres = {n: (t.camera.cx, t.camera.cy) for n, t in tokens.items()}
    assert relative_errors(align(predictions, principal_points=centres), views)[1] < 5e-3


def test_known_focal_lengths_and_poses_come_back_unchanged(views: list[SimulatedView]) -> None:
    predictions, tokens = predict(views)
    known = {n: views[n].pose for n in (0, 2, 5)}
    known_focal = tokens[1].camera.fx * 1.001
    alignment = align(
        predictions, focals={1: known_focal}, poses=known, principal_points={n: (t.camera.cx, t.camera.cy) for n, t in tokens.items()}
    )
    assert alignment.focals[1] == known_focal
    for n, pose in known.items():
        np.testing.assert_array_equal(alignment.poses[n], pose)
    for n in (1, 3, 4):
        np.testing.assert_allclose(alignment.poses[n], views[n].pose, atol=0.01)
    for n in range(COUNT):
        depth = alignment.depths[n].numpy()
        np.testing.assert_allclose(np.median((depth / tokens[n].features[0])[depth > 0]), 1.0, rtol=0.01)


def test_two_scenes_are_told_apart_and_the_larger_is_aligned(views: list[SimulatedView]) -> None:
    predictions, _ = predict(views)
    apart = [p for p in predictions if (p.i < 4) == (p.j < 4)]
    alignment = align(apart)
    assert alignment.parts == ((0, 1, 2, 3), (4, 5))
    assert alignment.images == (0, 1, 2, 3)
    assert alignment.unplaced == (4, 5)
    assert [other.images for other in alignment.others] == [(4, 5)]  # aligned too, in a frame of its own
    assert alignment.others[0].objective < 1e-2


def test_nothing_to_align_says_so(views: list[SimulatedView]) -> None:
    with pytest.raises(AlignmentError, match="no pair predictions"):
        align([])
    pairs = [(i, j) for i in range(COUNT) for j in range(COUNT) if i != j]
    with pytest.raises(AlignmentError, match="confidence above 1"):
        align(predict(views, wrong_pairs=pairs)[0])


def test_the_score_is_the_product_of_mean_confidences() -> None:
    two, three = torch.full((4, 4), 2.0), torch.full((4, 4), 3.0)
    assert score(PairPrediction(0, 1, torch.zeros(4, 4, 3), torch.zeros(4, 4, 3), two, three)) == pytest.approx(6.0)


def test_the_objective_by_hand() -> None:
    """One pair, one pixel of each view off by 3 and 4 units at scale 2: (log C) * distance, gauge 0.5 / 2."""
    depth = torch.ones(2, 2)
    points = {0: world_points(depth, np.eye(4), 2.0), 1: world_points(depth, np.eye(4), 2.0)}
    confidence = torch.full((2, 2), float(np.e))
    seen_i, seen_j = points[0] / 2, points[1] / 2
    seen_i[0, 0, 0] += 1.5
    seen_j[1, 1, 2] -= 2.0
    prediction = PairPrediction(0, 1, seen_i, seen_j, confidence, confidence)
    value = objective([prediction], points, [Similarity(2.0, np.eye(3), np.zeros(3))])
    assert value == pytest.approx(0.25 * (3 / 4 + 4 / 4), rel=1e-6)


def test_world_points_put_the_principal_point_in_the_middle_unless_told() -> None:
    points = world_points(torch.full((4, 6), 2.0), np.eye(4), 10.0)
    np.testing.assert_allclose(points[2, 3], [0, 0, 2])
    np.testing.assert_allclose(world_points(torch.full((4, 6), 2.0), np.eye(4), 10.0, (1.0, 0.0))[0, 1], [0, 0, 2])
