"""What goes wrong in the field: each works, or says why not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.pair_simulator import PairErrors, PairSimulator

from dust3r_ros.alignment import Alignment, AlignmentError, align
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Camera, procrustes, rotation_angle
from dust3r_ros.mapping.scene_graph import SceneGraph
from dust3r_ros.simulation import circle_sequence, corridor_sequence

COUNT = 10


@pytest.fixture(scope="module")
def circle() -> PairSimulator:
    return PairSimulator.of(circle_sequence(COUNT, 80, 60), seed=1)


def pairs_of(views: PairSimulator, graph: str = "swin-3") -> list[PairPrediction]:
    return views.pairs(SceneGraph.parse(graph).pairs(range(len(views.poses)), True))


def centres(views: PairSimulator) -> dict[int, tuple[float, float]]:
    return dict.fromkeys(range(len(views.poses)), (views.camera.cx, views.camera.cy))


def error(found: Alignment, views: PairSimulator) -> float:
    """RMSE of positions after the best similarity, as a share of the path's extent."""
    truth = np.stack([views.poses[n][:3, 3] for n in found.images])
    off = procrustes(found.poses[:, :3, 3], truth).apply(found.poses[:, :3, 3]) - truth
    return float(np.sqrt((off**2).sum(1).mean()) / np.linalg.norm(np.ptp(truth, axis=0)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_confident_wrong_pairs_are_dropped_and_named(seed: int) -> None:
    """Every fifth pair shows something else, as sure of itself as the others."""
    rng = np.random.default_rng(seed)
    pairs = SceneGraph.parse("swin-3").pairs(range(COUNT))
    wrong = [pairs[k] for k in rng.permutation(len(pairs))[:5]]
    spoilt = {pair: ("moved", "mistaken")[k % 2] for k, (i, j) in enumerate(wrong) for pair in ((i, j), (j, i))}
    views = PairSimulator.of(circle_sequence(COUNT, 80, 60), seed=1, wrong=spoilt)
    predictions = pairs_of(views)
    found = align(predictions, principal_points=centres(views))
    named = {(predictions[e].i, predictions[e].j) for e in found.dropped}
    assert found.images == tuple(range(COUNT))
    assert named <= set(spoilt)
    assert len(named) >= 6
    assert all("of the depth" in reason for reason in found.dropped.values())
    assert all(found.pair_similarities[e] is None for e in found.dropped)
    assert error(found, views) < 0.02


def test_right_pairs_are_not_dropped(circle: PairSimulator) -> None:
    assert not align(pairs_of(circle), principal_points=centres(circle)).dropped


def test_one_pair_is_a_scene(circle: PairSimulator) -> None:
    for pairs in ([(0, 1)], [(0, 1), (1, 0)]):
        found = align(circle.pairs(pairs), principal_points=centres(circle))
        assert found.images == (0, 1)
        true = np.linalg.inv(circle.poses[0]) @ circle.poses[1]
        own = np.linalg.inv(found.poses[0]) @ found.poses[1]
        assert rotation_angle(own[:3, :3].T @ true[:3, :3]) < 0.05
        along = own[:3, 3] @ true[:3, 3] / np.linalg.norm(own[:3, 3]) / np.linalg.norm(true[:3, 3])
        assert along > 0.95


def test_pure_rotation_leaves_the_camera_where_it_is() -> None:
    turning = circle_sequence(6, 80, 60)
    depth = np.full((60, 80), 2.0)
    poses = [np.eye(4) for _ in range(6)]
    for k, pose in enumerate(poses):
        angle = 0.1 * k
        pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    # Inside a sphere every view shows the same.
    rays = turning.camera.rays()
    views = PairSimulator([depth / np.linalg.norm(rays, axis=-1)] * 6, poses, turning.camera, PairErrors(noise=0.01))
    found = align(pairs_of(views), principal_points=centres(views))
    middle = float(torch.median(found.depths[0]))
    assert np.linalg.norm(found.poses[:, :3, 3] - found.poses[0, :3, 3], axis=1).max() < 0.05 * middle
    for k in range(6):
        turned = found.poses[0, :3, :3].T @ found.poses[k, :3, :3]
        assert rotation_angle(turned) == pytest.approx(0.1 * k, abs=0.02)


def test_identical_images_lie_on_each_other(circle: PairSimulator) -> None:
    twins = PairSimulator([circle.depths[0]] * 4, [circle.poses[0]] * 4, circle.camera)
    found = align(pairs_of(twins), principal_points=centres(twins))
    assert found.images == (0, 1, 2, 3)
    middle = float(torch.median(found.depths[0]))
    assert np.linalg.norm(found.poses[:, :3, 3] - found.poses[0, :3, 3], axis=1).max() < 0.05 * middle


def test_a_pair_that_knows_nothing_is_left_out_and_said(circle: PairSimulator) -> None:
    predictions = pairs_of(circle)
    blank = replace(predictions[3], confidence_j=torch.ones_like(predictions[3].confidence_j))
    found = align([*predictions[:3], blank, *predictions[4:]], principal_points=centres(circle))
    assert list(found.dropped) == [3]
    assert "no confidence above 1" in found.dropped[3]
    assert found.images == tuple(range(COUNT))
    with pytest.raises(AlignmentError, match="no pair holds together"):
        align([blank])


def test_images_that_are_never_first(circle: PairSimulator) -> None:
    """Only from the earlier image's side: the last has no view of its own."""
    predictions = circle.pairs(SceneGraph.parse("swin-3").pairs(range(COUNT)))
    found = align(predictions, principal_points=centres(circle))
    assert found.images == tuple(range(COUNT))
    assert error(found, circle) < 0.05


def test_parts_are_aligned_each_for_itself(circle: PairSimulator) -> None:
    predictions = [p for p in pairs_of(circle) if (p.i < 6) == (p.j < 6)]
    found = align(predictions, principal_points=centres(circle))
    assert found.parts == ((0, 1, 2, 3, 4, 5), (6, 7, 8, 9))
    assert found.images == (0, 1, 2, 3, 4, 5)
    assert [other.images for other in found.others] == [(6, 7, 8, 9)]
    for part in (found, *found.others):
        assert error(part, circle) < 0.05


def test_the_order_of_pairs_and_the_numbers_of_images_do_not_matter(circle: PairSimulator) -> None:
    predictions = pairs_of(circle)
    found = align(predictions, principal_points=centres(circle))
    renamed = [replace(p, i=100 - 7 * p.i, j=100 - 7 * p.j) for p in reversed(predictions)]
    other = align(renamed, principal_points={100 - 7 * n: c for n, c in centres(circle).items()})
    assert other.images == tuple(sorted(100 - 7 * n for n in range(COUNT)))
    assert other.objective == pytest.approx(found.objective, rel=1e-3)
    assert abs(error(found, circle) - error(replace(other, images=found.images, poses=other.poses[::-1]), circle)) < 0.003


def test_half_precision_predictions_are_taken(circle: PairSimulator) -> None:
    predictions = pairs_of(circle)
    halves = [PairPrediction(p.i, p.j, *(t.half() for t in (p.points_i, p.points_j, p.confidence_i, p.confidence_j))) for p in predictions]
    assert align(halves, principal_points=centres(circle)).objective == pytest.approx(
        align(predictions, principal_points=centres(circle)).objective, rel=1e-2
    )


@pytest.mark.slow
def test_a_thousand_images_in_a_chain() -> None:
    sequence = corridor_sequence(1000, 48, 36)
    views = PairSimulator.of(sequence, seed=2)
    camera: Camera = views.camera
    found = align(pairs_of(views, "swin-2"), focals=dict.fromkeys(range(1000), camera.fx), principal_points=centres(views))
    assert len(found.images) == 1000
    assert error(found, views) < 0.05
