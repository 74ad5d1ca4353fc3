"""Depth of one picture: by an estimator that knows it, and refused by those that cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.simulated_estimator import SimulatedEstimator

from dust3r_ros.estimators import EstimatorError, create_estimator
from dust3r_ros.matching import MatchingError, monocular_depth


def test_depth_is_in_the_cameras_own_pixels(views):
    estimator = SimulatedEstimator(views, size=80)
    found = monocular_depth(estimator, views[0].image, views[0].camera)
    assert found.depth.shape == found.confidence.shape == (120, 160)
    assert estimator.encoded == 1
    ratio = found.depth / views[0].depth
    assert np.mean(np.abs(ratio / np.median(ratio) - 1) < 0.02) > 0.9
    assert found.focal == pytest.approx(views[0].camera.fx, rel=1e-4)
    assert found.confidence.min() == 10


def test_through_a_lens_what_the_working_camera_does_not_see_is_unknown(views):
    lens = replace(views[0].camera, model="plumb_bob", distortion=(-0.25, 0.05, 0.0, 0.0))
    view = replace(views[0], depth=np.full((120, 160), 3.0, np.float32), camera=lens)
    found = monocular_depth(SimulatedEstimator([view], scales=False), view.image, lens)
    known = found.depth > 0
    assert 0.5 < known.mean() < 1
    assert not known[0, 0]
    np.testing.assert_allclose(found.depth[known], 3.0, rtol=1e-5)
    np.testing.assert_array_equal(found.confidence[~known], 1.0)
    assert found.focal == pytest.approx(lens.fx, rel=1e-4)


def test_an_estimator_that_needs_parallax_is_refused_by_name(views):
    with pytest.raises(MatchingError, match=r"estimator 'flow' knows nothing of a picture paired with itself"):
        monocular_depth(create_estimator("flow", 160), views[0].image, views[0].camera)


def test_a_picture_that_the_estimator_does_not_know_is_refused(views):
    with pytest.raises(MatchingError, match="confidence 1 everywhere"):
        monocular_depth(SimulatedEstimator(views[:1]), views[1].image, views[1].camera)


def test_an_image_of_another_size_is_the_estimators_to_refuse(views):
    with pytest.raises(EstimatorError, match="does not fit its camera"):
        monocular_depth(create_estimator("flow", 160), views[0].image[:60], views[0].camera)
