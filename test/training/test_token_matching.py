"""Patches that see the same point are to be alike: against a wall seen by two cameras, one a patch beside the other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dust3r_ros.training.losses import PointmapTruth
from dust3r_ros.training.token_matching import token_matching_loss

PATCH, ROWS, COLUMNS = 8, 3, 4
TEMPERATURE = 0.07


def _wall(shift: int) -> Tensor:
    """[1, H, W, 3]: a wall two metres away, pixels a centimetre apart, seen from `shift` pixels to the right."""
    y, x = torch.meshgrid(torch.arange(PATCH * ROWS) * 0.01, (torch.arange(PATCH * COLUMNS) + shift) * 0.01, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, 2.0)], dim=-1)[None]


def _truth(shift: int, depth: float = 2.0) -> PointmapTruth:
    second = _wall(shift) * torch.tensor([1.0, 1.0, depth / 2])
    known = [torch.ones(second.shape[:3], dtype=torch.bool) for _ in range(2)]
    return PointmapTruth(_wall(0), second, *known, torch.eye(4)[None], *2 * (torch.ones(1, 4),))  # which does not look at the cameras


def _tokens(first_column: int) -> Tensor:
    """[1, N, C]: every patch of a long wall has a token of its own, like no other's."""
    codes = torch.eye(ROWS * 2 * COLUMNS).view(ROWS, 2 * COLUMNS, -1)
    return codes[:, first_column : first_column + COLUMNS].reshape(1, ROWS * COLUMNS, -1)


def _loss(tokens_1: Tensor, tokens_2: Tensor, truth: PointmapTruth) -> Tensor:
    one, two = (torch.nn.functional.normalize(tokens, dim=-1) for tokens in (tokens_1, tokens_2))
    return token_matching_loss(one @ two.transpose(1, 2) / TEMPERATURE, truth, PATCH)


def test_tokens_that_are_alike_where_the_point_is_the_same_cost_nothing() -> None:
    assert _loss(_tokens(0), _tokens(1), _truth(PATCH)).item() == pytest.approx(0, abs=1e-3)
    assert _loss(_tokens(0), _tokens(0), _truth(PATCH)).item() > 5  # alike at the same place of the picture instead


def test_tokens_that_tell_nothing_apart_cost_what_guessing_does() -> None:
    same = torch.ones(1, ROWS * COLUMNS, 5)
    assert _loss(same, same, _truth(PATCH)).item() == pytest.approx(math.log(ROWS * COLUMNS), rel=1e-5)


def test_between_two_patches_both_are_right_by_their_nearness() -> None:
    """A quarter of a patch to the right: the likeness that costs least says three parts of one to one part of its neighbour."""
    truth = _truth(PATCH // 4)
    likeness = torch.zeros(1, ROWS * COLUMNS, ROWS * COLUMNS, requires_grad=True)
    optimiser = torch.optim.Adam([likeness], lr=0.3)
    for _ in range(200):
        optimiser.zero_grad()
        token_matching_loss(likeness, truth, PATCH).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    share = likeness.detach().softmax(2)[0, 1]  # the second patch of the first row
    assert share[1].item() == pytest.approx(0.75, abs=0.05)
    assert share[0].item() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("truth", [_truth(0, depth=3.0), _truth(PATCH * COLUMNS)], ids=["another wall", "beside it"])
def test_views_that_share_nothing_cost_nothing(truth: PointmapTruth) -> None:
    tokens = torch.rand(1, ROWS * COLUMNS, 5, requires_grad=True)
    loss = _loss(tokens, tokens.flip(1), truth)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert tokens.grad is not None
    assert bool(torch.isfinite(tokens.grad).all())


def test_what_is_not_known_is_not_asked_for() -> None:
    """One row of patches has no depth in view 1: a token of it that is like the wrong one costs nothing, one of another row does."""
    truth = _truth(0)
    truth.valid_1[:, :PATCH] = False
    truth.points_1[:, :PATCH] = float("nan")
    tokens = _tokens(0)
    assert _loss(tokens, tokens, truth).item() == pytest.approx(0, abs=1e-3)
    unknown, known = tokens.clone(), tokens.clone()
    unknown[0, [0, 1]] = tokens[0, [1, 0]]
    known[0, [-1, -2]] = tokens[0, [-2, -1]]
    assert _loss(unknown, tokens, truth).item() == pytest.approx(0, abs=1e-3)
    assert _loss(known, tokens, truth).item() > 1


def test_nothing_known_costs_nothing() -> None:
    truth = _truth(0)
    truth.valid_1[:] = False
    truth.points_1[:] = float("nan")
    likeness = torch.rand(1, ROWS * COLUMNS, ROWS * COLUMNS, requires_grad=True)
    loss = token_matching_loss(likeness, truth, PATCH)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert likeness.grad is not None
    assert not likeness.grad.any()


def test_gradients_make_patches_alike() -> None:
    torch.manual_seed(0)
    truth = _truth(PATCH)
    one, two = (torch.randn(1, ROWS * COLUMNS, 16, requires_grad=True) for _ in range(2))
    optimiser = torch.optim.Adam([one, two], lr=0.1)
    first = _loss(one, two, truth).item()
    for _ in range(40):
        optimiser.zero_grad()
        _loss(one, two, truth).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert _loss(one, two, truth).item() < first / 10
