"""The simulated pairs that alignment is measured on: true but for the errors that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.pair_simulator import PairErrors, PairSimulator

from dust3r_ros.simulation import circle_sequence

COUNT = 6
EXACT = PairErrors(noise=0.0, outliers=0.0, scales=0.0)


def simulator(errors: PairErrors, wrong: dict | None = None, seed: int = 0) -> PairSimulator:
    return PairSimulator.of(circle_sequence(COUNT, 128, 96, seed=3), errors, wrong, seed)


def relative_error(source: PairSimulator, i: int, j: int, view: int) -> np.ndarray:
    """[H, W] logarithm of the view's distance in the pair (i, j) over its true one."""
    pair = source.pair(i, j)
    points = (pair.points_i if view == i else pair.points_j).double().numpy()
    centre = (np.linalg.inv(source.poses[i]) @ source.poses[view])[:3, 3]
    true = source.depths[view] * np.linalg.norm(source.camera.rays(), axis=-1)
    return np.log(np.linalg.norm(points - centre, axis=-1) / true)


def test_without_errors_the_points_are_the_true_ones() -> None:
    source = simulator(EXACT)
    pair = source.pair(1, 4)
    local = source.camera.rays() * source.depths[4][..., None]
    world = local @ source.poses[4][:3, :3].T + source.poses[4][:3, 3]
    expected = (world - source.poses[1][:3, 3]) @ source.poses[1][:3, :3]
    np.testing.assert_allclose(pair.points_j.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(pair.points_i.numpy(), source.camera.rays() * source.depths[1][..., None], atol=1e-6)
    assert (pair.points_i.dtype, pair.confidence_j.dtype) == (torch.float32, torch.float32)


def test_the_noise_has_its_size_and_neighbours_share_it() -> None:
    source = simulator(PairErrors(unevenness=0.0, outliers=0.0, scales=0.0))
    fields = np.stack([relative_error(source, i, j, view) for i in range(COUNT) for j in range(COUNT) if i != j for view in (i, j)])
    assert fields.std() == pytest.approx(0.03, rel=0.1)
    np.testing.assert_allclose(fields.std(axis=0).mean(axis=(0, 1)), 0.03, rtol=0.1)

    def correlation(apart: int) -> float:
        return float((fields[..., apart:] * fields[..., :-apart]).mean() / fields.var())

    assert correlation(4) > 0.95
    assert 0.2 < correlation(32) < 0.8  # a cell
    assert abs(correlation(100)) < 0.2


def test_every_pair_and_view_has_noise_of_its_own() -> None:
    source = simulator(PairErrors(outliers=0.0, scales=0.0))
    flat = np.stack([relative_error(source, *pair, view).ravel() for pair, view in (((0, 1), 0), ((0, 1), 1), ((1, 0), 0), ((0, 2), 0))])
    assert not np.isclose(np.corrcoef(flat), 1.0, atol=0.02)[~np.eye(4, dtype=bool)].any()


def test_confidence_falls_as_the_error_grows() -> None:
    source = simulator(PairErrors(outliers=0.0, scales=0.0))
    error, confidence = [], []
    for i in range(COUNT):
        for j in range(COUNT):
            if i != j:
                error.append(np.abs(relative_error(source, i, j, j)) * source.depths[j])
                confidence.append(source.pair(i, j).confidence_j.numpy())
    order = np.argsort(np.stack(confidence).ravel())
    quarters = [float(part.mean()) for part in np.array_split(np.stack(error).ravel()[order], 4)]
    assert quarters == sorted(quarters, reverse=True)
    assert quarters[0] > 2 * quarters[-1]
    assert np.min(confidence) > 1


def test_views_that_share_nothing_tell_little_of_each_other() -> None:
    source = simulator(PairErrors(apart=9.0, outliers=0.0, scales=0.0))
    assert source.overlap(2, 2) == 1.0
    assert source.overlap(0, 3) < 0.1 < source.overlap(0, 1) + 0.1  # opposite; neighbours
    assert relative_error(source, 0, 3, 3).std() > 4 * relative_error(source, 0, 3, 0).std()
    assert float(source.pair(0, 3).confidence_j.log().mean() / source.pair(0, 3).confidence_i.log().mean()) < 0.3


def test_outliers_are_as_many_as_asked_for_and_unsure() -> None:
    source = simulator(PairErrors(noise=0.005, unevenness=0.0, outliers=0.02, scales=0.0))
    far = np.abs(relative_error(source, 2, 3, 2)) > 0.1
    assert far.mean() == pytest.approx(0.018, abs=0.004)
    assert float(source.pair(2, 3).confidence_i.numpy()[far].max()) <= 1.5


def test_a_wrong_pair_is_as_sure_as_the_others() -> None:
    for kind in ("moved", "mistaken"):
        right, wrong = simulator(PairErrors()).pair(0, 3), simulator(PairErrors(), {(0, 3): kind}).pair(0, 3)
        assert torch.equal(right.points_i, wrong.points_i)
        away = (right.points_j - wrong.points_j).norm(dim=-1) / right.points_j.norm(dim=-1)
        assert float(away.median()) > 0.2
        assert float(wrong.confidence_j.median() / right.confidence_j.median()) > 0.5


def test_a_moved_view_keeps_its_shape() -> None:
    right, wrong = (simulator(PairErrors(), kind).pair(0, 3).points_j[::8, ::8].reshape(-1, 3) for kind in ({}, {(0, 3): "moved"}))
    torch.testing.assert_close(torch.pdist(right), torch.pdist(wrong), atol=1e-3, rtol=1e-3)


def test_a_seed_says_it_all() -> None:
    first, again, other = (simulator(PairErrors(), seed=seed).pair(2, 5) for seed in (0, 0, 1))
    assert torch.equal(first.points_j, again.points_j)
    assert torch.equal(first.confidence_i, again.confidence_i)
    assert not torch.equal(first.points_j, other.points_j)
