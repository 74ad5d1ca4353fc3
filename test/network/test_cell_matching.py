"""Matched cells: where two views show the same wall a little apart they are found, to less than a pixel, the same in either order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network import NetworkConfig, cell_matching, sampled_likeness
from dust3r_ros.network.cell_matching import LOOKS, CellMatching, first_found, places_of
from dust3r_ros.network.config import MATCHED_CELL
from dust3r_ros.network.match_refinement import DETAIL_CELL, FINE_CELL, REACH, WINDOW, Cells, Look, Pairing, windows
from dust3r_ros.network.sampled_likeness import Likeness

CONFIG = NetworkConfig(
    encoder_width=64, encoder_heads=2, decoder_width=32, decoder_heads=2, patch_size=16, head="camera", match_width=16, detail_width=8,
    tracked=True, image_size=64,
)  # fmt: skip
GRID, CELLS = (4, 6), (8, 12)


def _matching() -> CellMatching:
    torch.manual_seed(0)
    return CellMatching(CONFIG)


def _images(shift: int = 0) -> Tensor:
    """[1, 3, 32, 48] of a long wall, seen from `shift` pixels to the right."""
    wall = torch.rand(1, 3, 32, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return wall[..., shift : shift + 48]


def _tokens(seed: int = 0) -> Tensor:
    return torch.randn(1, 24, 64, generator=torch.Generator().manual_seed(seed))


def _packed(matching: CellMatching, images: Tensor, tokens: Tensor) -> Tensor:
    return matching.cells(images, images.repeat_interleave(2, -1).repeat_interleave(2, -2), tokens)


def _cells(matching: CellMatching, shift: int = 0, seed: int = 0) -> Cells:
    return matching.unpacked(_packed(matching, _images(shift), _tokens(seed)), GRID)


def _alone(matching: CellMatching, own: Cells, other: Cells) -> list[Look]:
    pairing = Pairing.of(own, other)
    return matching._looks(matching.refinement, pairing, *first_found(pairing), LOOKS)


def test_places_are_middles_of_cells_around_the_pictures_middle() -> None:
    places = places_of(32, 48, torch.device("cpu")).view(*CELLS, 2)
    torch.testing.assert_close(places.mean((0, 1)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(places[0, 0], torch.tensor([1.5 - 23.5, 1.5 - 15.5]))  # pixels count from 0, the middle is between two
    torch.testing.assert_close(places[2, 3] - places[2, 2], torch.tensor([4.0, 0.0]))


def test_cells_are_found_where_they_are_seen_again() -> None:
    """By untrained convolutions already: the second view lies 8 pixels to the right, its tokens say nothing."""
    matching = _matching().requires_grad_(False)
    matching.sharpness.copy_(torch.tensor([6.0, -6.0]))
    matching.refinement.sharpness.fill_(4.0)
    one, two = _cells(matching), _cells(matching, shift=8)
    looks, _ = matching(matching.pairings(one, two))
    moved = (looks[-1].found - places_of(32, 48, torch.device("cpu"))).view(*CELLS, 2)[2:-2, 4:-2]  # borders are seen by convolutions
    assert (moved - torch.tensor([-8.0, 0.0])).norm(dim=-1).median() < 0.7


def test_details_find_a_fraction_of_a_pixel() -> None:
    """By untrained convolutions: the second view lies 8 pixels to the right, and the look begins one and a half off."""
    torch.manual_seed(0)
    matching = CellMatching(CONFIG).requires_grad_(False)
    assert matching.details is not None
    matching.details.sharpness.fill_(4.5)
    wall = F.avg_pool2d(torch.rand(1, 3, 68, 124, generator=torch.Generator().manual_seed(0)) * 10 - 5, 5, 1)
    views = [wall[..., shift : shift + 96] for shift in (0, 16)]
    one, two = (matching.unpacked(matching.cells(F.avg_pool2d(view, 2), view, _tokens()), GRID) for view in views)
    places, pairing = places_of(32, 48, torch.device("cpu")), Pairing.of(one, two)
    start = places + torch.tensor([-8.0 + 1.2, 0.9])
    (look,) = matching._looks(matching.details, pairing, start[None], torch.zeros(1, 96, 1), 1)
    off = (look.found - places - torch.tensor([-8.0, 0.0])).view(*CELLS, 2)[2:-2, 4:-2].norm(dim=-1)
    assert look.cell == 1
    assert off.median() < 0.5


def test_gathered_likeness_is_the_same_as_sampled() -> None:
    generator = torch.Generator().manual_seed(0)
    own, others = (torch.randn(3, n, 4, generator=generator).requires_grad_() for n in (7, 50))
    index = torch.randint(0, 50, (3, 7, 9), generator=generator)
    found, gradients = [], []
    for likeness in (sampled_likeness.sampled_likeness, sampled_likeness.gathered_likeness):
        found.append(likeness(own, others, index))
        gradients.append(torch.autograd.grad(found[-1].square().sum(), [own, others]))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(Likeness(own.detach(), others.detach(), sparse=True).at(index), found[0].detach())


def test_likeness_is_of_convolutions_and_tokens_each_by_its_weight() -> None:
    matching = _matching().requires_grad_(False)
    matching.sharpness.copy_(torch.tensor([1.5, 0.5]))
    cells = _cells(matching)
    likeness = matching.likeness(cells, cells)[0]
    torch.testing.assert_close(likeness.diagonal(), torch.full((96,), 1.5).exp() + torch.full((96,), 0.5).exp())
    matching.sharpness.copy_(torch.tensor([-30.0, 0.5]))
    of_tokens = matching.likeness(_cells(matching), _cells(matching, shift=8))[0]
    torch.testing.assert_close(of_tokens.diagonal(), torch.full((96,), 0.5).exp(), atol=1e-4, rtol=0)


def test_cells_lie_as_the_picture_does() -> None:
    """What is packed patch by patch comes back as the maps that the convolutions made, and tokens' parts lie as in the patch."""
    matching = _matching().requires_grad_(False)
    matching.sharpness.zero_()
    cells = _cells(matching)
    coarse, fine, detail = matching.features(_images(), _images().repeat_interleave(2, -1).repeat_interleave(2, -2))
    torch.testing.assert_close(cells.coarse[:, :16], coarse)
    torch.testing.assert_close(cells.fine, fine)
    torch.testing.assert_close(cells.detail, detail)
    assert cells.detail.shape == (1, 8, 32, 48)
    raw = matching.proj(_tokens()).view(*GRID, CONFIG.match_width, 2, 2)  # channel-major
    probe = F.normalize(raw, dim=2)
    for down in range(2):
        for across in range(2):
            torch.testing.assert_close(cells.coarse[0, 16:, 2 + down, 4 + across], probe[1, 2, :, down, across])


@pytest.mark.parametrize("sparse", [False, True], ids=["of all", "of few"])
@pytest.mark.parametrize("learns", [False, True], ids=["loops", "torch"])
def test_windows_interpolate_and_end_with_the_picture(learns: bool, sparse: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    own, others = torch.randn(1, 5, 2, 3, generator=generator), torch.randn(1, 5, 9, 11, generator=generator)
    centre = torch.tensor([[[0.3, -0.7], [3.9, 2.2], [-9.9, 7.1], [40.0, 0.0], [-10.0, 8.0], [10.0, 0.5]]])
    likeness = Likeness(*(values.flatten(2).transpose(1, 2).requires_grad_(learns) for values in (own, others)), sparse=sparse)
    found = windows(likeness, others.shape[2:], centre, FINE_CELL).view(6, WINDOW, WINDOW)
    assert bool((found[3] == 0).all())
    axis = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
    for at, (x, y) in enumerate((centre[0] / FINE_CELL).tolist()):
        down, across = torch.meshgrid(axis + y, axis + x, indexing="ij")
        grid = torch.stack([across / 5.5, down / 4.5], dim=-1)[None]  # grid_sample's -1 to 1 without aligned corners
        there = F.grid_sample(others, grid, align_corners=False)[0]
        torch.testing.assert_close(found[at], (own[0, :, at // 3, at % 3, None, None] * there).sum(0), atol=1e-5, rtol=1e-4)


def test_first_place_is_the_mean_around_the_most_alike() -> None:
    coarse = torch.zeros(1, 2, 4, 8)
    coarse[0, 0, 1, 2], coarse[0, 0, 1, 3] = 30.0, 30.0  # between these two lies the match
    coarse[0, 0, 3, 7] = 29.0  # alike, but elsewhere
    own = Cells(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 2, 2), torch.zeros(1, 0, 4, 4), torch.zeros(1, 0, 4, 4))
    found, share = first_found(
        Pairing.of(own, Cells(coarse, torch.zeros(1, 1, 8, 16), torch.zeros(1, 0, 16, 32), torch.zeros(1, 0, 16, 32)))
    )
    places = places_of(16, 32, torch.device("cpu")).view(4, 8, 2)
    torch.testing.assert_close(found[0, 0], (places[1, 2] + places[1, 3]) / 2, atol=1e-3, rtol=0)
    assert share.exp().item() == pytest.approx(1 / (2 + torch.tensor(-1.0).exp().item()), rel=1e-3)


def test_either_order_finds_the_same() -> None:
    matching = _matching().requires_grad_(False)
    one = _cells(matching)
    two = matching.unpacked(_packed(matching, torch.rand(1, 3, 32, 16), torch.randn(1, 8, 64)), (4, 2))
    first, second = matching(matching.pairings(one, two))
    swapped_first, swapped_second = matching(matching.pairings(two, one))
    assert first[-1].found.shape == (1, 96, 2)
    assert second[-1].found.shape == (1, 32, 2)
    for look, same in zip([*first, *second], [*swapped_second, *swapped_first], strict=True):
        for value, wanted in zip(vars(look).values(), vars(same).values(), strict=True):
            torch.testing.assert_close(value, wanted)


def test_a_second_look_begins_where_cells_are_expected_unless_that_is_far_outside() -> None:
    matching = _matching().requires_grad_(False)
    one, two = _cells(matching), _cells(matching, shift=8, seed=1)
    pairings = matching.pairings(one, two)
    looks = [side[-1] for side in matching(pairings)]
    missed = [torch.full_like(look.found, 3.0) for look in looks]
    missed[0][:, 0] = torch.tensor([100.0, 0.0])
    missed[0][:, 1] = torch.nan
    centres = [side[0].centre for side in matching.again(pairings, (looks[0], looks[1]), (missed[0], missed[1]), 2)]
    torch.testing.assert_close(centres[0][:, 2:], looks[0].found[:, 2:] + 3.0)
    torch.testing.assert_close(centres[0][:, :2], looks[0].found[:, :2])
    torch.testing.assert_close(centres[1], looks[1].found + 3.0)


def test_what_was_seen_before_is_remembered() -> None:
    """The same looks from the same places end elsewhere once others came before them; the second of them is at details."""
    matching = _matching().requires_grad_(False)
    assert matching.details is not None
    for refinement in (matching.refinement, matching.details):
        refinement.out.weight.normal_(std=0.3)
    one, two = _cells(matching), _cells(matching, shift=8, seed=1)
    pairings = matching.pairings(one, two)
    first, second = (side[-1] for side in matching(pairings))
    missed = (first.found * 0, second.found * 0)
    again, _ = matching.again(pairings, (first, second), missed, 2)
    assert [look.cell for look in again] == [FINE_CELL, DETAIL_CELL]
    forgotten = tuple(replace(look, memory=look.memory * 0) for look in (first, second))
    afresh, _ = matching.again(pairings, (forgotten[0], forgotten[1]), missed, 2)
    torch.testing.assert_close(afresh[0].window, again[0].window)
    assert not torch.allclose(afresh[0].found, again[0].found, atol=1e-2)
    assert not torch.allclose(afresh[1].memory, again[1].memory, atol=1e-2)


def test_both_views_at_once_are_as_each_by_itself() -> None:
    """Of one size they go in one batch."""
    matching = _matching().requires_grad_(False)
    one, two = _cells(matching), _cells(matching, shift=8, seed=1)
    for side, (own, other) in zip(matching(matching.pairings(one, two)), ((one, two), (two, one)), strict=True):
        for look, wanted in zip(side, _alone(matching, own, other), strict=True):
            for value, same in zip(vars(look).values(), vars(wanted).values(), strict=True):
                torch.testing.assert_close(value, same, atol=1e-4, rtol=1e-4)


def test_what_is_found_does_not_depend_on_how_much_is_looked_at_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    matching = _matching().requires_grad_(False)
    one, two = _cells(matching), _cells(matching, shift=8, seed=1)
    whole = _alone(matching, one, two)
    monkeypatch.setattr(cell_matching, "LARGEST", 7 * 96)  # seven of 96 rows
    in_parts = _alone(matching, one, two)
    monkeypatch.setattr(sampled_likeness, "WHOLE", 0)
    assert not Pairing.of(one, two).coarse.is_whole
    for look, *others in zip(whole, in_parts, _alone(matching, one, two), strict=True):
        for other in others:
            for value, same in zip(vars(other).values(), vars(look).values(), strict=True):
                torch.testing.assert_close(value, same, atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_weight() -> None:
    matching = _matching()
    assert matching.details is not None
    for refinement in (matching.refinement, matching.details):
        torch.nn.init.normal_(refinement.out.weight, std=0.1)
    one, two = _cells(matching), _cells(matching, shift=8, seed=1)
    pairings = matching.pairings(one, two)
    first = matching(pairings)
    last = (first[0][-1], first[1][-1])
    again = matching.again(pairings, last, (torch.zeros_like(last[0].found), torch.zeros_like(last[1].found)), 2)
    assert matching.tracking is not None
    torch.nn.init.normal_(matching.tracking.judge.fc2.weight, std=0.1)
    tracked = matching.tracked(pairings, (again[0][-1], again[1][-1]))
    looks = [look for side in (*first, *again, *tracked) for look in side]
    loss = sum(look.found.square().mean() + look.log_error.mean() + look.seen.mean() for look in looks)
    (loss + matching.likeness(one, two).square().mean()).backward()  # type: ignore[union-attr]
    for name, parameter in matching.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.abs().sum() > 0), name


def test_a_cell_is_as_wide_as_its_name_says() -> None:
    assert _cells(_matching()).size == (CELLS[0] * MATCHED_CELL, CELLS[1] * MATCHED_CELL) == (32, 48)
