"""Matches from descriptors. The descriptors are simulated: functions of the true place in the world, plus noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from support.correspondence import match_errors, pairs_of

from dust3r_ros.matching import (
    Matches,
    MatchingError,
    match_coarse_to_fine,
    match_descriptors,
    match_descriptors_fast,
    window_pairs,
    windows_of,
)
from dust3r_ros.simulation import world_descriptors


@pytest.fixture(scope="module")
def fields(views) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(world_descriptors(view, noise=0.2)) for view in views)


@pytest.fixture(scope="module")
def exact(fields) -> Matches:
    return match_descriptors(*fields)


def random_field(height: int, width: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(height, width, 16, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_exact_matches_are_right(views, exact):
    errors = match_errors(exact.pixels_1, exact.pixels_2, *views)
    assert len(exact) > 0.3 * 160 * 120
    assert np.median(errors) < 0.8
    assert np.mean(errors < 2) > 0.95


def test_the_fast_matches_are_exact_ones_and_right(views, fields, exact):
    fast = match_descriptors_fast(*fields, step=4)
    assert pairs_of(fast) <= pairs_of(exact)
    assert len(pairs_of(fast)) == len(fast) > 0.75 * 160 * 120 / 16
    assert np.mean(match_errors(fast.pixels_1, fast.pixels_2, *views) < 2) > 0.95


@pytest.mark.parametrize("seed", range(4))
def test_the_fast_matches_of_noise_are_exact_ones_too(seed):
    one, two = random_field(30, 40, seed), random_field(24, 36, seed + 100)
    fast, whole = match_descriptors_fast(one, two, step=2), match_descriptors(one, two)
    assert 0 < len(fast) < len(whole)
    assert pairs_of(fast) <= pairs_of(whole)


def test_every_pixel_as_a_start_finds_every_match(fields):
    small = [field[::2, ::2] for field in fields]
    assert pairs_of(match_descriptors_fast(*small, step=1)) == pairs_of(match_descriptors(*small))


def test_exact_matches_are_mutual_by_every_product_written_out():
    one, two = random_field(12, 17, 5), random_field(15, 11, 6)
    product = one.reshape(-1, 16).double() @ two.reshape(-1, 16).double().T
    expected = set()
    for at, to in enumerate(product.argmax(1).tolist()):
        if product[:, to].argmax() == at:
            expected.add((at % 17, at // 17, to % 11, to // 11))
    assert pairs_of(match_descriptors(one, two)) == expected


def test_a_picture_turned_upside_down_matches_itself(fields):
    small = fields[0][::2, ::2]
    found = match_descriptors(small, small.flip((0, 1)))
    assert len(found) == 80 * 60
    np.testing.assert_array_equal(found.pixels_1 + found.pixels_2, np.broadcast_to((79, 59), (len(found), 2)))


@pytest.mark.parametrize("match", [match_descriptors, match_descriptors_fast])
def test_pixels_without_confidence_or_with_nan_have_no_part_in_it(fields, match):
    sure = torch.full((120, 160), 4.0)
    sure[:, :100] = 0.0
    spoilt = fields[1].clone()
    spoilt[:60] = torch.nan
    found = match(fields[0], spoilt, sure, torch.full((120, 160), 9.0))
    assert len(found) > 20
    assert found.pixels_1[:, 0].min() >= 100
    assert found.pixels_2[:, 1].min() >= 60
    np.testing.assert_allclose(found.confidence, 6.0)
    assert len(match(*fields, torch.zeros(120, 160))) == 0
    assert len(match(fields[0], torch.full_like(fields[1], torch.nan))) == 0


@pytest.mark.parametrize("match", [match_descriptors, match_descriptors_fast])
def test_descriptors_of_one_value_give_one_match_at_most(match):
    flat = torch.ones(8, 8, 4) / 2
    assert len(match(flat, flat)) <= 1


def test_descriptors_of_different_networks_are_refused(fields):
    with pytest.raises(MatchingError, match="24 and 16 numbers"):
        match_descriptors(fields[0], random_field(4, 4, 0))
    with pytest.raises(MatchingError, match=r"descriptors of view 1 of shape \(160, 24\)"):
        match_descriptors(fields[0][0], fields[1])


# ---- coarse to fine ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 48), (160, 120), (333, 64)])
def test_windows_cover_the_image_and_overlap(width, height):
    windows = windows_of(width, height, side=64, overlap=0.5)
    covered = np.zeros((height, width), int)
    for window in windows:
        assert window.x + window.width <= width
        covered[window.y : window.y + window.height, window.x : window.x + window.width] += 1
    assert covered.min() >= 1
    starts = sorted({window.x for window in windows})
    assert all(b - a <= 32 for a, b in itertools.pairwise(starts))


def test_the_fewest_window_pairs_that_hold_the_coarse_matches_are_taken():
    windows = windows_of(128, 64, side=64, overlap=0.0)
    left, right = np.tile([[10.0, 10.0]], (80, 1)), np.tile([[100.0, 10.0]], (80, 1))
    coarse = Matches(np.concatenate([left, right[:20]]), np.concatenate([right, left[:20]]), np.ones(100))
    assert window_pairs(coarse, windows, windows, coverage=0.8) == [(0, 1)]
    assert window_pairs(coarse, windows, windows, coverage=0.9) == [(0, 1), (1, 0)]
    assert window_pairs(coarse[:0], windows, windows) == []


def test_coarse_to_fine_finds_what_the_whole_image_has(views, fields):
    coarse = match_descriptors_fast(fields[0][::4, ::4], fields[1][::4, ::4], step=1)
    coarse = Matches(coarse.pixels_1 * 4, coarse.pixels_2 * 4, coarse.confidence)
    asked = []

    def describe(window_1, window_2):
        asked.append((window_1, window_2))
        return window_1.cut(fields[0]), window_2.cut(fields[1])

    fine = match_coarse_to_fine(describe, coarse, (160, 120), (160, 120), side=64, step=4)
    assert len(asked) < len(windows_of(160, 120, side=64)) ** 2 / 4
    assert len(fine) > 0.7 * 160 * 120 / 16
    assert np.mean(match_errors(fine.pixels_1, fine.pixels_2, *views) < 2) > 0.93
    for pixels in (fine.pixels_1, fine.pixels_2):
        assert len(np.unique(pixels, axis=0)) == len(fine)  # each pixel once
    assert len(match_coarse_to_fine(describe, coarse[:0], (160, 120), (160, 120))) == 0


def test_descriptors_that_are_not_of_the_window_are_refused(fields):
    coarse = Matches([[5, 5]], [[5, 5]], [1])
    with pytest.raises(MatchingError, match=r"descriptors of shape \(120, 160, 24\) for Window"):
        match_coarse_to_fine(lambda *_: fields, coarse, (160, 120), (160, 120), side=64)
