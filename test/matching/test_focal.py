"""The focal length from pairs: true pointmaps, noisy ones, and those that say nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.geometry import Camera, working_camera
from dust3r_ros.matching import MatchingError, focal_length
from dust3r_ros.matching.focal import weighted_median


def predict(views, pairs, **errors) -> tuple[list[PairPrediction], Tokens]:
    estimator = SimulatedEstimator(views, **errors)
    tokens = {key: estimator.encode(view.image, view.camera) for key, view in enumerate(views)}
    return estimator.estimate(tokens, pairs), tokens[0]


def test_a_true_pointmap_gives_the_true_focal_length(views):
    predictions, tokens = predict(views, [(0, 1)])
    found = focal_length(predictions, 0, tokens.camera)
    assert found.focal == pytest.approx(tokens.camera.fx, rel=1e-5)
    assert found.in_source(tokens) == pytest.approx(views[0].camera.fx, rel=1e-5)
    assert (found.pairs, found.spread) == (((0, 1),), 0.0)


def test_points_that_left_their_rays_change_it_little(views):
    predictions, tokens = predict(views, [(0, 1)])
    noise = 0.05 * torch.randn(predictions[0].points_i.shape, generator=torch.Generator().manual_seed(0))
    spoilt = replace(predictions[0], points_i=predictions[0].points_i * (1 + noise))
    assert focal_length([spoilt], 0, tokens.camera).focal == pytest.approx(tokens.camera.fx, rel=0.01)


def test_what_is_of_confidence_one_has_no_say(views):
    predictions, tokens = predict(views, [(0, 1)])
    points, sure = predictions[0].points_i.clone(), predictions[0].confidence_i.clone()
    points[:40, :, :2] *= 3
    sure[:40] = 1.0
    assert focal_length([replace(predictions[0], points_i=points, confidence_i=sure)], 0, tokens.camera).focal == pytest.approx(
        tokens.camera.fx, rel=1e-5
    )
    assert focal_length([replace(predictions[0], confidence_i=torch.ones_like(sure))], 0, tokens.camera) is None


def test_one_wrong_pair_of_three_is_outvoted_and_pairs_of_other_views_are_passed_over(views):
    predictions, tokens = predict(views, [(0, 1), (1, 0)])
    right = predictions[0]
    wrong = replace(right, j=7, points_i=right.points_i * torch.tensor([0.5, 0.5, 1.0]))
    stretched = replace(predictions[1], points_i=predictions[1].points_i * torch.tensor([9.0, 9.0, 1.0]))
    found = focal_length([wrong, right, stretched, replace(right, j=5)], 0, tokens.camera)
    assert found.focal == pytest.approx(tokens.camera.fx, rel=1e-5)
    assert found.pairs == ((0, 7), (0, 1), (0, 5))
    assert found.spread == pytest.approx(0.0, abs=1e-5)
    assert focal_length([right], 3) is None


def test_a_lens_keeps_its_own_focal_length():
    lens = Camera(640, 480, 400.0, 400.0, 322.0, 236.0, "plumb_bob", (-0.2, 0.05, 0.0, 0.0))
    target = working_camera(lens, 160)
    points = torch.from_numpy(3.0 * target.rays())
    sure = torch.full(points.shape[:2], 5.0)
    tokens = Tokens(lens, target, np.zeros((target.height, target.width, 3), np.uint8))
    found = focal_length([PairPrediction(0, 1, points, points, sure, sure)], 0, target)
    assert found.in_source(tokens) == pytest.approx(400.0, rel=1e-5)


def test_a_camera_of_another_size_is_refused(views):
    predictions, _ = predict(views, [(0, 1)])
    with pytest.raises(MatchingError, match="its points are 80x60, its camera 160x120"):
        focal_length(predictions, 0, views[0].camera)


def test_the_weighted_median_halves_the_weights():
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0])) == 2.0
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.array([5.0, 1.0, 1.0])) == 3.0
    assert weighted_median(np.array([1.0, 2.0]), np.array([1.0, 1.0])) == 1.5
    assert weighted_median(np.array([4.0]), np.array([2.0])) == 4.0
