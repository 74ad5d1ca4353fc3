"""NetworkEstimator's memory: tokens live as long as their keyframe, and a device that is too small gets smaller batches."""

from __future__ import annotations

import gc
import logging

import pytest
import torch
from support.network_views import CAMERA, EXACT, MATCHED, PAIRS, estimator, image, same, views
from support.networks import DPT, SMALL, small_network

from dust3r_ros.estimators import EstimatorError, Tokens
from dust3r_ros.estimators.two_view import NetworkEstimator
from dust3r_ros.network import ImageTokens, TwoViewNetwork, TwoViewOutput
from dust3r_ros.network.pair_geometry import PairGeometry


def test_tokens_live_as_long_as_their_keyframe() -> None:
    own = estimator()
    seen = views(own)
    own.estimate(seen, PAIRS)
    held = own.runner.store.device_bytes
    assert held > 0
    del seen[0]
    gc.collect()
    assert own.runner.store.device_bytes == pytest.approx(0.75 * held)
    del seen
    gc.collect()
    assert own.runner.store.device_bytes == 0


def test_the_oldest_tokens_make_room_and_come_back() -> None:
    own = estimator()
    seen = views(own)
    reference = own.estimate(seen, PAIRS)
    one = own.runner.store.device_bytes // 4
    own.runner.store.budget = 2 * one
    again = own.encode(image(9), CAMERA)
    assert own.runner.store.device_bytes <= 2 * one
    assert seen[0].features.details == [None, None]
    assert any(seen[key].features.details != [None, None] for key in (2, 3))
    for a, b in zip(own.estimate(seen, PAIRS), reference, strict=True):
        same(a, b)
    assert own.runner.store.device_bytes <= 2 * one
    del again


def test_two_hundred_keyframes_hold_no_more_than_ten() -> None:
    """The window slides; what has left it is gone. (10,000 of them: bench/network_memory.py.)"""
    own = estimator(SMALL)
    window: dict[int, Tokens] = {}
    held = []
    for index in range(200):
        window[index] = own.encode(image(index % 7), CAMERA)
        if len(window) > 4:
            del window[min(window)]
        own.estimate(window, [(index, other) for other in window if other != index])
        held.append(own.runner.store.device_bytes)
    assert max(held[10:]) == held[10]
    assert len(own.runner.store._resident) == 4


class Narrow(TwoViewNetwork):
    """Runs out of memory as a device does: with more than `room` pairs, or images, at once."""

    room = 1

    def decoded(
        self, tokens_1: ImageTokens, tokens_2: ImageTokens, geometry: PairGeometry | None, descriptors: bool = True
    ) -> TwoViewOutput:
        if len(tokens_1.values) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().decoded(tokens_1, tokens_2, geometry, descriptors)


@pytest.mark.parametrize(
    ("room", "said"), [(8, []), (4, ["12 pairs at once: going on with 6", "6 pairs at once: going on with 3"]), (1, ["going on with 1"])]
)
def test_out_of_memory_halves_the_batch_says_so_and_goes_on(room: int, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    reference = estimator().estimate(views(estimator()), PAIRS)
    network = Narrow(DPT)
    network.load_state_dict(small_network(DPT).state_dict())
    network.room = room
    own = NetworkEstimator(network, "narrow", hardware=EXACT)
    own.runner.batch = 8 if room == 8 else 16
    with caplog.at_level(logging.WARNING):
        found = own.estimate(views(own), PAIRS)
    for a, b in zip(found, reference, strict=True):
        same(a, b)
    lines = [record.getMessage() for record in caplog.records]
    assert all(any(words in line for line in lines) for words in said)
    assert own.runner.batch <= room
    caplog.clear()
    own.estimate(views(own), PAIRS)
    assert not caplog.records  # it has learned


def test_out_of_memory_with_both_orders_of_a_pair_goes_on_with_one_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    network = Narrow(MATCHED)
    own = NetworkEstimator(network, "narrow", hardware=EXACT)
    with caplog.at_level(logging.WARNING):
        found = own.estimate(views(own, 2), [(0, 1), (1, 0)])
    assert [(prediction.i, prediction.j) for prediction in found] == [(0, 1), (1, 0)]
    assert "out of memory with 2 pairs at once: going on with 1" in caplog.text


def test_both_orders_of_a_pair_stay_together_while_they_fit(caplog: pytest.LogCaptureFixture) -> None:
    network = Narrow(MATCHED)
    network.room = 2
    own = NetworkEstimator(network, "narrow", hardware=EXACT)
    own.runner.batch = 16
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
    with caplog.at_level(logging.WARNING):
        found = own.estimate(views(own, 3), pairs)
    assert [(prediction.i, prediction.j) for prediction in found] == pairs
    assert "out of memory with 6 pairs at once: going on with 2" in caplog.text


def test_not_even_one_pair_fits() -> None:
    network = Narrow(DPT)
    network.room = 0
    own = NetworkEstimator(network, "narrow", hardware=EXACT)
    with pytest.raises(EstimatorError, match=r"even with one image or pair: set estimator\.size to less"):
        own.estimate(views(own), PAIRS)
