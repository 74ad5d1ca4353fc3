"""Matches told to the decoders: where two views show the same wall a little apart they are found, and both sides are told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dust3r_ros.network import NetworkConfig, patch_matching
from dust3r_ros.network.patch_matching import PatchMatching

CONFIG = NetworkConfig(
    encoder_width=64, encoder_heads=2, decoder_width=32, decoder_heads=2, patch_size=8, head="camera", match_width=16, image_size=64
)
GRID, CELLS = (3, 5), (6, 10)


def _matching() -> PatchMatching:
    torch.manual_seed(0)
    return PatchMatching(CONFIG)


def _images(shift: int = 0) -> Tensor:
    """[1, 3, 24, 40] of a long wall, seen from `shift` pixels to the right."""
    wall = torch.rand(1, 3, 24, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return wall[..., shift : shift + 40]


def _tokens(seed: int = 0) -> Tensor:
    return torch.randn(1, 15, 64, generator=torch.Generator().manual_seed(seed))


def test_places_are_middles_of_cells_around_the_pictures_middle() -> None:
    places = _matching().places(GRID, torch.device("cpu")).view(*CELLS, 2)
    torch.testing.assert_close(places.mean((0, 1)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(places[0, 0], torch.tensor([-0.5, -0.9]))  # a cell is a tenth of the longer side, whose half is 1
    torch.testing.assert_close(places[2, 3] - places[2, 2], torch.tensor([0.0, 0.2]))


def test_cells_are_found_where_they_are_seen_again() -> None:
    """By untrained convolutions already: the second view lies two cells to the right, its tokens say nothing."""
    matching = _matching()
    with torch.no_grad():
        matching.sharpness.copy_(torch.tensor([6.0, -6.0]))
        one, two = (matching.cells(_images(shift), _tokens()) for shift in (0, 8))
        share = matching.likeness(one, GRID, two, GRID).softmax(2).view(*CELLS, *CELLS)
    inside = share[2:-2, 4:-2]  # away from the borders, which convolutions see
    found = torch.stack([inside[row, column, row + 2, column + 2] for row in range(2) for column in range(4)])
    assert found.mean() > 0.5


def test_likeness_is_of_convolutions_and_tokens_each_by_its_weight() -> None:
    matching = _matching()
    with torch.no_grad():
        matching.sharpness.copy_(torch.tensor([1.5, 0.5]))
        cells = matching.cells(_images(), _tokens())
        likeness = matching.likeness(cells, GRID, cells, GRID)[0]
        torch.testing.assert_close(likeness.diagonal(), torch.full((60,), 1.5).exp() + torch.full((60,), 0.5).exp())
        matching.sharpness.copy_(torch.tensor([-30.0, 0.5]))
        cells = matching.cells(_images(), _tokens())
        of_tokens = matching.likeness(cells, GRID, matching.cells(_images(8), _tokens()), GRID)[0]
    torch.testing.assert_close(of_tokens.diagonal(), torch.full((60,), 0.5).exp(), atol=1e-4, rtol=0)


def test_cells_lie_as_the_picture_does() -> None:
    """What the projection says of a patch's parts goes to its upper left, upper right, lower left and lower right cell."""
    matching = _matching()
    with torch.no_grad():
        matching.sharpness.copy_(torch.tensor([-60.0, 0.0]))
        raw = matching.proj(_tokens()).view(*GRID, CONFIG.match_width, 2, 2)  # channel-major
        probe = torch.nn.functional.normalize(raw, dim=2)
        likeness = matching.likeness(*2 * (matching.cells(_images(), _tokens()), GRID))[0].view(*CELLS, *CELLS)
    for down in range(2):
        for across in range(2):
            wanted = (probe[1, 2, :, down, across] * probe[0, 4, :, 1, 0]).sum()
            torch.testing.assert_close(likeness[2 + down, 4 + across, 1, 8], wanted, atol=1e-5, rtol=0)


def test_each_side_is_told_what_the_other_order_tells_it() -> None:
    matching = _matching().requires_grad_(False)
    one = matching.cells(_images(), _tokens())
    two = matching.cells(torch.rand(1, 3, 32, 16), torch.randn(1, 8, 64))
    first, second = matching(one, GRID, two, (4, 2))
    swapped_first, swapped_second = matching(two, (4, 2), one, GRID)
    assert first.shape == (1, 15, 32)
    assert second.shape == (1, 8, 32)
    torch.testing.assert_close(first, swapped_second)
    torch.testing.assert_close(second, swapped_first)


def test_what_is_told_does_not_depend_on_how_much_is_looked_at_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    matching = _matching().requires_grad_(False)
    one, two = (matching.cells(_images(shift), _tokens(shift)) for shift in (0, 8))
    whole = matching(one, GRID, two, GRID)
    monkeypatch.setattr(patch_matching, "LARGEST", 7 * 60)  # seven of sixty rows
    for found, wanted in zip(matching(one, GRID, two, GRID), whole, strict=True):
        torch.testing.assert_close(found, wanted)


def test_gradients_reach_every_weight() -> None:
    matching = _matching()
    cells = [matching.cells(_images(shift), _tokens(shift)) for shift in (0, 8)]
    first, second = matching(cells[0], GRID, cells[1], GRID)
    (first.square().mean() + second.square().mean()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in matching.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.abs().sum() > 0), name
