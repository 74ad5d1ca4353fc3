"""A network's descriptors into the searches. The weights are random: it is about whose pixel is whose, not about good matches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.networks import DPT, MASTER, small_network

from dust3r_ros.estimators.two_view import NetworkEstimator
from dust3r_ros.estimators.two_view.hardware import choose_hardware
from dust3r_ros.geometry import Camera
from dust3r_ros.matching import (
    Matches,
    MatchingError,
    describe_by_network,
    match_coarse_to_fine,
    match_descriptors_fast,
    match_prediction,
)
from dust3r_ros.matching.windows import Window


@pytest.fixture(scope="module")
def estimator() -> NetworkEstimator:
    return NetworkEstimator(small_network(MASTER), "small", hardware=choose_hardware("cpu", "float32"))


def picture(seed: int, width: int = 96, height: int = 72) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_pairs_descriptors_are_matched(estimator: NetworkEstimator) -> None:
    camera = Camera.from_fov(96, 72, 60)
    views = {key: estimator.encode(picture(key), camera) for key in (0, 1)}
    (prediction,) = estimator.estimate(views, [(0, 1)], descriptors=True)
    found = match_prediction(prediction, step=4)
    assert prediction.descriptors_i is not None
    assert prediction.descriptors_j is not None
    expected = match_descriptors_fast(
        prediction.descriptors_i, prediction.descriptors_j, prediction.descriptor_confidence_i, prediction.descriptor_confidence_j, step=4
    )
    assert len(found) > 0
    np.testing.assert_array_equal(found.pixels_2, expected.pixels_2)
    (without,) = estimator.estimate(views, [(0, 1)])
    with pytest.raises(MatchingError, match=r"pair \(0, 1\) has no descriptors"):
        match_prediction(without)


def test_a_windows_descriptors_are_the_networks_of_that_cut(estimator: NetworkEstimator) -> None:
    """A window of the network's own size loses nothing."""
    images = picture(0), picture(1)
    first, second = Window(8, 16, 64, 48), Window(32, 0, 64, 48)
    one, two = describe_by_network(estimator, *images)(first, second)
    cuts = [images[0][16:64, 8:72], images[1][:48, 32:96]]
    tensors = [torch.from_numpy(cut.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for cut in cuts]
    with torch.inference_mode():
        out = estimator.network(*tensors)
    torch.testing.assert_close(one, out.descriptors_1[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(two, out.descriptors_2[0], atol=1e-5, rtol=1e-4)


def test_windows_of_other_sizes_come_back_in_their_own_pixels(estimator: NetworkEstimator) -> None:
    one, two = describe_by_network(estimator, picture(0), picture(1))(Window(0, 0, 90, 50), Window(3, 3, 40, 40))
    assert one.shape == (50, 90, 6)
    assert two.shape == (40, 40, 6)
    lengths = one.norm(dim=-1)
    assert bool(((lengths - 1).abs() < 1e-4).float().mean() > 0.85)
    assert set((lengths > 0.5).float().unique().tolist()) <= {0.0, 1.0}


def test_coarse_to_fine_with_a_network(estimator: NetworkEstimator) -> None:
    images = picture(0), picture(1)
    coarse = Matches(np.array([[10.0, 10.0], [80.0, 60.0]]), np.array([[12.0, 11.0], [70.0, 50.0]]), np.ones(2))
    fine = match_coarse_to_fine(describe_by_network(estimator, *images), coarse, (96, 72), (96, 72), side=64, step=8)
    assert len(np.unique(fine.pixels_1, axis=0)) == len(fine)
    assert (fine.pixels_1 < (96, 72)).all()
    assert len(fine) > 0
    without = NetworkEstimator(small_network(DPT), "plain", hardware=choose_hardware("cpu", "float32"))
    with pytest.raises(Exception, match="model plain has no descriptors"):
        match_coarse_to_fine(describe_by_network(without, *images), coarse, (96, 72), (96, 72), side=64)
