"""Likenesses at a few places: those of the whole product, whatever part of it is in memory at a time, with their gradients."""

from __future__ import annotations

import pytest
import torch

from dust3r_ros.network import sampled_likeness as module
from dust3r_ros.network.match_refinement import mean_and_spread, windows
from dust3r_ros.network.sampled_likeness import Likeness, sampled_likeness


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    own, others = (torch.randn(3, n, 4, generator=generator, dtype=torch.float64) for n in (5, 7))
    return own, others, torch.randint(7, (3, 5, 6), generator=generator)


@pytest.mark.parametrize("largest", [1, 14, 40, 1 << 20], ids=["a row", "two rows", "a pair", "all"])
def test_values_and_gradients_are_those_of_the_whole_product(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", largest)
    own, others, index = _inputs()
    weight = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))
    gradients = []
    for of in (sampled_likeness, lambda a, b, i: (a @ b.transpose(1, 2)).gather(2, i).float()):
        a, b = own.clone().requires_grad_(), others.clone().requires_grad_()
        found = of(a, b, index)
        (found * weight).sum().backward()
        gradients.append((found.detach(), a.grad, b.grad))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)


def test_training_in_half_precision_does_not_round_what_is_whole() -> None:
    own, others, index = (value.float() if value.is_floating_point() else value for value in _inputs())
    with torch.autocast("cpu", torch.bfloat16):
        found = sampled_likeness(own, others, index)
        mean, spread = mean_and_spread(own.softmax(-1), 40 * others[0, :4, :2])
    torch.testing.assert_close(found, sampled_likeness(own, others, index), rtol=0, atol=0)
    same = mean_and_spread(own.softmax(-1), 40 * others[0, :4, :2])
    torch.testing.assert_close((mean, spread), same, rtol=0, atol=0)


def test_all_is_kept_where_it_fits_and_nobody_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    own, others, index = (value.float() if value.is_floating_point() else value for value in _inputs())
    kept, learned = Likeness(own, others), Likeness(own.clone().requires_grad_(), others)
    assert kept.is_whole
    assert not learned.is_whole
    with torch.no_grad():
        assert Likeness(own.clone().requires_grad_(), others).is_whole
    monkeypatch.setattr(module, "WHOLE", 3 * 5 * 7 - 1)
    large = Likeness(own, others)
    assert not large.is_whole
    for one in (learned, large):
        torch.testing.assert_close(one.at(index), kept.at(index))
        for largest in (1, 50, 1000):
            torch.testing.assert_close(torch.cat(list(one.parts(largest)), dim=1), own @ others.transpose(1, 2))
    assert len(list(large.parts(2 * 3 * 7))) == 3  # two cells of five at a time


def test_loops_make_none_but_the_few() -> None:
    own, others, index = (value.float() if value.is_floating_point() else value for value in _inputs())
    few, kept = Likeness(own, others, few_by_loops=True), Likeness(own, others)
    assert few.whole.numel() == 0
    assert Likeness(own.double(), others.double(), few_by_loops=True).is_whole  # which no loops are for
    centre = torch.tensor([[0.3, -1.4], [2.0, 0.0], [-9.0, 1.0], [0.0, 0.0], [1.1, 0.4]]).expand(3, -1, -1)
    shape = torch.Size((1, 7))
    torch.testing.assert_close(windows(few, shape, centre, 1), windows(kept, shape, centre, 1))
    torch.testing.assert_close(few.at(index), kept.at(index))
