"""Matches from pointmaps: against the simulated room's truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.correspondence import match_errors, pairs_of
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.matching import MatchingError, match_points


def predicted(views, pair=(0, 1), size=160, **errors) -> PairPrediction:
    estimator = SimulatedEstimator(views, size=size, **errors)
    tokens = {key: estimator.encode(view.image, view.camera) for key, view in enumerate(views)}
    return estimator.estimate(tokens, [pair])[0]


def test_true_pointmaps_match_to_the_pixel(views):
    found = match_points(predicted(views))
    errors = match_errors(found.pixels_1, found.pixels_2, *views)
    assert len(found) > 0.4 * 160 * 120
    assert np.median(errors) < 0.6  # the mean distance to the nearest of whole pixels is 0.38
    assert np.mean(errors < 2) > 0.97
    np.testing.assert_allclose(found.confidence, 10.0)


def test_with_noise_of_two_percent_there_are_fewer_matches_and_they_are_still_near(views):
    found = match_points(predicted(views, noise=0.02))
    assert 1000 < len(found) < len(match_points(predicted(views)))
    assert np.median(match_errors(found.pixels_1, found.pixels_2, *views)) < 3


def test_outliers_that_admit_it_are_left_out(views):
    prediction = predicted(views, outliers=0.3)
    trusted = match_points(prediction, min_confidence=2.0)
    assert np.median(match_errors(trusted.pixels_1, trusted.pixels_2, *views)) < 0.7
    assert trusted.confidence.min() == pytest.approx(10.0)


def test_a_step_finds_a_subset(views):
    prediction = predicted(views)
    every, some = match_points(prediction), match_points(prediction, step=4)
    assert pairs_of(some) < pairs_of(every)
    assert len(some) == pytest.approx(len(every) / 16, rel=0.15)


def test_the_other_order_finds_the_same_pairs(views):
    prediction = predicted(views)
    swapped = replace(
        prediction,
        points_i=prediction.points_j,
        points_j=prediction.points_i,
        confidence_i=prediction.confidence_j,
        confidence_j=prediction.confidence_i,
    )
    one, other = match_points(prediction, max_distance=None), match_points(swapped, max_distance=None).swapped()
    assert pairs_of(one) == pairs_of(other)


def test_an_image_paired_with_itself_matches_every_pixel_with_itself(views):
    found = match_points(predicted([views[0], views[0]]))
    assert len(found) == 160 * 120
    np.testing.assert_array_equal(found.pixels_1, found.pixels_2)


def test_views_of_different_sizes_match(views):
    small, large = SimulatedEstimator(views, size=80, scales=False), SimulatedEstimator(views, size=160, scales=False)
    tokens = {0: small.encode(views[0].image, views[0].camera), 1: large.encode(views[1].image, views[1].camera)}
    found = match_points(large.estimate(tokens, [(0, 1)])[0])
    assert found.pixels_1.max() < 80 <= found.pixels_2.max()
    in_camera = (found.pixels_1 + 0.5) * 2 - 0.5  # between four pixels of the rendered view: half a pixel more error
    errors = match_errors(np.floor(in_camera), found.pixels_2, *views)
    assert np.median(errors) < 1.3


def test_where_views_do_not_overlap_there_is_no_match(views):
    prediction = predicted(views)
    assert len(match_points(replace(prediction, points_j=prediction.points_j + 100.0))) == 0
    assert len(match_points(predicted(views, wrong_pairs=[(0, 1)]))) == 0  # confidence 1 everywhere


def test_points_that_are_not_finite_have_no_part_in_it(views):
    prediction = predicted(views)
    points = prediction.points_i.clone()
    points[:, :80] = torch.nan
    found = match_points(replace(prediction, points_i=points))
    assert len(found) > 1000
    assert found.pixels_1[:, 0].min() >= 80


def test_confidence_of_another_size_is_refused(views):
    prediction = predicted(views)
    with pytest.raises(MatchingError, match=r"points of view 0 of \(120, 160\) pixels with confidence of \(3, 3\)"):
        match_points(replace(prediction, confidence_i=torch.ones(3, 3)))
    with pytest.raises(MatchingError, match="every 0th pixel"):
        match_points(prediction, step=0)
