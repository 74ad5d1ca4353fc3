"""Patches tracked: to a hundredth of a pixel where the pictures say it, the same in loops as in torch, and unmoved where they do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network import patch_tracking
from dust3r_ros.network.cell_matching import places_of
from dust3r_ros.network.patch_tracking import PatchTracking, slants, tracked_patches

HEIGHT, WIDTH = 96, 128
GRID = (HEIGHT // 8, WIDTH // 8)  # cells are four pixels of the halved picture wide
PLACES = places_of(HEIGHT // 2, WIDTH // 2, torch.device("cpu"))
TURN = torch.tensor([[0.96, 0.12], [-0.08, 1.05]])
SHIFT = torch.tensor([1.3, -0.7])  # pixels of the halved picture


def _texture(at: Tensor) -> Tensor:
    """Of places [..., 2] in pixels of the whole picture: waves, none shorter than nine pixels."""
    generator = torch.Generator().manual_seed(5)
    waves, phases = 0.5 * torch.randn(24, 2, generator=generator).clamp(-1.4, 1.4), 6.3 * torch.rand(24, generator=generator)
    return (at @ waves.T + phases).sin().mean(-1)


def _pictures(gain: float = 1.0, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """A plane seen twice: what is at x in the first is at TURN x + 2 SHIFT in the second."""
    down, across = torch.meshgrid(torch.arange(HEIGHT) - (HEIGHT - 1) / 2, torch.arange(WIDTH) - (WIDTH - 1) / 2, indexing="ij")
    at = torch.stack([across, down], dim=-1)
    back = (at - 2 * SHIFT) @ torch.linalg.inv(TURN).T
    return _texture(at)[None], gain * _texture(back)[None] + offset


def _truth() -> Tensor:
    return (PLACES @ TURN.T + SHIFT)[None]


def _is_inside(found: Tensor) -> Tensor:
    edge = torch.tensor([WIDTH / 4 - 5, HEIGHT / 4 - 5])
    return ((found.abs() < edge) & (PLACES.abs() < edge)).all(-1)


def _off(spread: float) -> Tensor:
    return spread * torch.randn(1, len(PLACES), 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["loops", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(patch_tracking, "is_for_loops", lambda _: request.param == "loops")
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.6, 0.3)])
def test_matches_half_a_pixel_off_are_brought_to_a_fiftieth(gain: float, offset: float) -> None:
    truth = _truth()
    start = truth + _off(0.3)
    found, evidence = tracked_patches(*_pictures(gain, offset), PLACES, start, torch.ones(1, len(PLACES)), GRID)
    inside = _is_inside(truth)
    before, after = ((values - truth).norm(dim=-1)[inside] for values in (start, found))
    assert inside.sum() > 50
    assert after.median() < 0.02 < 0.3 < before.median()
    assert after.quantile(0.9) < 0.1
    assert evidence[inside][:, 0].median() > 0.99


def test_loops_say_what_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    start, weight = _truth() + _off(0.4), torch.rand(1, len(PLACES), generator=torch.Generator().manual_seed(2)).sub(0.2).clamp_min(0)
    both = []
    for is_loops in (True, False):
        monkeypatch.setattr(patch_tracking, "is_for_loops", lambda _, said=is_loops: said)
        both.append(tracked_patches(*_pictures(0.8), PLACES, start, weight, GRID))
    for one, two in zip(*both, strict=True):
        torch.testing.assert_close(one, two, atol=2e-3, rtol=2e-3)


@pytest.mark.usefixtures("way")
def test_what_is_hardly_seen_is_not_looked_for() -> None:
    start = _truth() + _off(0.3)
    seen = torch.full((1, len(PLACES)), 3.0)
    seen[:, ::5] = -6.0
    tracking, log_error = PatchTracking(), torch.full_like(seen, -1.0)
    found, _, _ = tracking(_pictures(), start, log_error, seen, PLACES, GRID)
    moved = (found - start).norm(dim=-1)
    assert (moved[:, ::5] == 0).all()
    assert (moved[seen > 0] > 0).float().mean() > 0.5


@pytest.mark.usefixtures("way")
def test_what_is_lost_stays_where_it_was() -> None:
    """Places that are no numbers, far outside, without any texture, or another surface's."""
    own, other = _pictures()
    flat = torch.zeros_like(other)
    start = _truth()
    start[0, 0], start[0, 1] = torch.nan, 1e30
    for picture in (flat, other.flip(1)):
        found, evidence = tracked_patches(own, picture, PLACES, start, torch.ones(1, len(PLACES)), GRID)
        moved = (found - start).norm(dim=-1)
        assert evidence.isfinite().all()
        assert torch.equal(found[0, 1], start[0, 1])
        assert found[0, 0].isnan().all()
        assert moved[0, 1:].max() < patch_tracking.FARTHEST
    assert (tracked_patches(own, flat, PLACES, start, torch.ones(1, len(PLACES)), GRID)[1][..., 0].abs() < 0.2).all()


def test_slant_is_that_of_the_plane_though_some_neighbours_are_wrong() -> None:
    found = _truth()
    wrong = torch.rand(found.shape[:2], generator=torch.Generator().manual_seed(3)) < 0.2
    found = torch.where(wrong[..., None], found + 40.0, found)
    turned = slants(PLACES, found, torch.where(wrong, 0.1, 1.0), GRID)
    inner = ~wrong & _is_inside(_truth())
    torch.testing.assert_close(turned[inner], TURN.expand(int(inner.sum()), 2, 2), atol=0.02, rtol=0.0)


def test_judge_learns_to_follow_what_correlates() -> None:
    """Half of the pictures show something else: there, the start is the better place."""
    own, other = _pictures()
    pictures = torch.cat([own, own]), torch.cat([other, _texture_of_another()])
    truth = _truth().expand(2, -1, -1)
    generator = torch.Generator().manual_seed(4)
    start = truth + 0.3 * torch.randn(truth.shape, generator=generator)
    torch.manual_seed(0)
    tracking = PatchTracking()
    optimiser = torch.optim.Adam(tracking.parameters(), 0.02)
    inside = _is_inside(truth)
    nothing = torch.zeros(truth.shape[:2])

    def errors() -> tuple[Tensor, Tensor]:
        found, log_error, _ = tracking(pictures, start, nothing - 1.0, nothing + 2.0, PLACES, GRID)
        return (found - truth).abs().sum(-1), log_error

    for _ in range(150):
        off, log_error = errors()
        loss = (off * (-log_error).exp() + log_error)[inside].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    off, log_error = errors()
    before = (start - truth).abs().sum(-1)
    assert off[0][inside[0]].median() < 0.2 * before[0][inside[0]].median()
    assert off[1][inside[1]].mean() < 1.15 * before[1][inside[1]].mean()
    assert log_error[0][inside[0]].mean() < log_error[1][inside[1]].mean() - 1.0


def _texture_of_another() -> Tensor:
    noise = torch.randn(1, 1, HEIGHT // 4, WIDTH // 4, generator=torch.Generator().manual_seed(6))
    return 0.3 * F.interpolate(noise, size=(HEIGHT, WIDTH), mode="bicubic")[:, 0]
