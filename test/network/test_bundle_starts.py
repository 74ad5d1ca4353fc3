"""Where the adjustment of two cameras may begin: near the truth where most matches are wrong, and on its other side."""

from __future__ import annotations

from dataclasses import replace

import torch
from support.matched_views import PAIRS, SAME, degrees, directions, truth_of, views_of
from support.networks import SMALL
from torch import Tensor

from dust3r_ros.network import two_view_bundle
from dust3r_ros.network.bundle_starts import best_of, misfit, reversed_motion
from dust3r_ros.network.pair_geometry import FIRST_STEPS, GeometryEstimation
from dust3r_ros.network.triple_consensus import _motions, _nearest, agreed
from dust3r_ros.network.two_view_bundle import Steps, TwoCameras, adjusted
from dust3r_ros.network.two_view_reprojection import MatchedView

FOCAL, GRID, SIZE = 60.0, (20, 28), torch.tensor([112.0, 80.0])
CELLS = GRID[0] * GRID[1]
RADIUS = 2.0


def in_a_sphere(
    turn: float, wrong: float, seed: int = 0, depth_noise: float = 0.2
) -> tuple[Tensor, Tensor, tuple[MatchedView, MatchedView]]:
    """Turns and moves of cameras within a sphere, and their views: depths of a picture alone, and that share of matches anywhere."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(torch.randn(PAIRS, 3, generator=generator), dim=-1)
    rotation = two_view_bundle._rotation(turn * axis)
    move = 0.8 * torch.nn.functional.normalize(torch.randn(PAIRS, 3, generator=generator), dim=-1)
    row, column = torch.meshgrid(*(4 * (torch.arange(n) - (n - 1) / 2) for n in GRID), indexing="ij")
    places = torch.stack([column, row], dim=-1).flatten(0, 1).expand(PAIRS, -1, -1)
    poses = (torch.eye(3).expand(PAIRS, 3, 3), torch.zeros(PAIRS, 3)), (rotation, move)
    views = []
    for (own_turn, own_place), (other_turn, other_place) in (poses, poses[::-1]):
        rays = torch.nn.functional.pad(places / FOCAL, (0, 1), value=1.0) @ own_turn.transpose(1, 2)
        along, far = (rays * own_place[:, None]).sum(-1), rays.square().sum(-1)
        depth = (-along + (along**2 + far * (RADIUS**2 - own_place.square().sum(-1)[:, None])).sqrt()) / far
        x, y, z = ((own_place[:, None] + depth[..., None] * rays - other_place[:, None]) @ other_turn).unbind(-1)
        there = FOCAL * torch.stack([x, y], dim=-1) / z[..., None].clamp_min(0.05)
        anywhere = (torch.rand(PAIRS, CELLS, 2, generator=generator) - 0.5) * SIZE
        is_seen = (z > 0.05) & (there.abs() < SIZE / 2).all(-1)
        is_right = is_seen & (torch.rand(PAIRS, CELLS, generator=generator) > wrong)
        guessed = depth.log() + depth_noise * torch.randn(PAIRS, CELLS, generator=generator)
        ones, focal = torch.ones(PAIRS, CELLS), torch.full((PAIRS,), FOCAL).log()
        found = torch.where(is_right[..., None], there, anywhere)
        measured = torch.zeros(PAIRS).bool()
        views.append(
            MatchedView(
                places,
                found,
                torch.where(is_seen, 1.0, 0.002),
                guessed,
                4 * ones,
                focal,
                torch.full((PAIRS,), 100.0),
                torch.zeros(PAIRS, 2),
                measured,
            )
        )
    return rotation, move, (views[0], views[1])


def test_triples_agree_on_the_motion_where_many_matches_are_wrong() -> None:
    """After a large turn, of which the adjustment from cameras in one place finds little."""
    found, there = [], []
    for seed in range(6):
        rotation, _, views = in_a_sphere(turn=0.5, wrong=0.4, seed=seed)
        start = agreed(*views, (GRID, GRID))
        assert torch.equal(start.log_depth_1, views[0].log_depth)
        found.append(degrees(start.rotation, rotation))
        there.append(degrees(adjusted(*views, SAME, 4.0, Steps(12)).rotation, rotation))
    assert (torch.cat(found) < 15).float().mean() > 0.65
    assert (torch.cat(there) < 15).float().mean() < 0.35


def test_a_pair_begins_at_the_better_of_both_starts() -> None:
    """Turns of 57 degrees, of which the adjustment from cameras in one place finds fewer."""
    config = replace(SMALL, patch_size=8, head="camera", match_width=8)
    estimation = GeometryEstimation(config).requires_grad_(False)
    there, begun = [], []
    for seed in range(6):
        rotation, _, views = in_a_sphere(turn=1.0, wrong=0.0, seed=seed)
        one, two = (replace(view, weight=(view.weight > 0.5).float()) for view in views)
        there.append(degrees(estimation._adjusted((one, two), FIRST_STEPS).rotation, rotation) < 10)
        begun.append(degrees(estimation._begun((one, two), (GRID, GRID)).rotation, rotation) < 10)
    assert torch.cat(begun).sum() > torch.cat(there).sum()


def test_a_triple_gives_its_motion_whatever_its_axes() -> None:
    """Turned by a right angle, its axes have no coordinate in common; of points on a line there is no turn to find."""
    triple = torch.tensor([[0.0, 0.0, 2.0], [1.0, 1.0, 2.0], [1.0, -1.0, 2.0]])
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    move = torch.tensor([0.3, -0.2, 0.1])
    found, moved, scale = _motions((1.5 * triple @ turn.T + move)[None, None], triple[None, None])
    torch.testing.assert_close(found[0, 0], turn, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[0, 0], move, atol=1e-5, rtol=0)
    assert abs(float(scale) - 1.5) < 1e-5
    line = torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.0, 2.0], [2.0, 0.0, 2.0]])
    assert torch.equal(_motions(line[None, None], line[None, None])[0][0, 0], torch.eye(3))


def test_true_matches_and_depths_give_the_motion_with_the_depths_scale() -> None:
    """The second picture's depths are a third too small: its own scale, which the motion's is not."""
    rotation, move, (one, two) = in_a_sphere(turn=0.2, wrong=0.0, depth_noise=0.0)
    start = agreed(one, replace(two, log_depth=two.log_depth - 0.4), (GRID, GRID))
    assert degrees(start.rotation, rotation).max() < 5
    assert directions(start.translation, move).max() < 15
    torch.testing.assert_close(start.translation.norm(dim=1), move.norm(dim=1), atol=0.15, rtol=0)
    torch.testing.assert_close(start.log_depth_2, two.log_depth, atol=0.15, rtol=0)


def test_what_is_not_seen_is_not_asked() -> None:
    """Matches without weight may be anywhere; where none has any, or none is a number, nothing is found but nothing breaks."""
    _, _, (one, two) = in_a_sphere(turn=0.2, wrong=0.0, depth_noise=0.0)
    one, two = (replace(view, weight=(view.weight > 0.5).float()) for view in (one, two))
    start = agreed(one, two, (GRID, GRID))
    moved = replace(one, found=torch.where(one.weight[..., None] > 0, one.found, -one.found))
    assert torch.equal(agreed(moved, two, (GRID, GRID)).rotation, start.rotation)
    blind = agreed(*(replace(view, weight=torch.zeros_like(view.weight)) for view in (one, two)), (GRID, GRID))
    torch.testing.assert_close(torch.linalg.det(blind.rotation), torch.ones(PAIRS))
    broken = one.found.clone()
    broken[1] = torch.nan
    torch.testing.assert_close(
        agreed(replace(one, found=broken), two, (GRID, GRID)).rotation[[0, 2, 3, 4, 5]], start.rotation[[0, 2, 3, 4, 5]]
    )


def test_a_place_has_the_depth_of_the_cell_that_it_lies_in() -> None:
    """Counted from the principal point, which may lie beside the middle; what lies outside has that of the nearest cell."""
    _, _, (one, _) = in_a_sphere(turn=0.2, wrong=0.0)
    middle = torch.tensor([7.0, -3.0])
    view = replace(one, log_depth=torch.arange(CELLS).float().expand(PAIRS, -1), principal=middle.expand(PAIRS, 2))
    places = one.places - middle + 1.5
    assert torch.equal(_nearest(view, places, GRID), view.log_depth)
    corner = _nearest(view, torch.tensor([[[-900.0, -900.0], [900.0, 900.0]]]).expand(PAIRS, -1, -1), GRID)
    assert corner[0].tolist() == [0.0, CELLS - 1.0]


def test_the_opposite_motion_leads_back_from_the_wrong_side() -> None:
    truth = truth_of(motion=0.4)
    one, two = views_of(truth, noise=0.1)
    good = adjusted(one, two, SAME, 4.0, Steps(20))
    away = replace(good, translation=-good.translation, log_depth_1=0 * good.log_depth_1, log_depth_2=0 * good.log_depth_2)
    away = adjusted(one, two, SAME, 4.0, Steps(2, turning=0, first_doubt=3.0), away.state())
    start = reversed_motion(away, one, two)
    assert torch.equal(start.translation, -away.translation)
    assert torch.equal(start.log_depth_1, one.log_depth)
    back = adjusted(one, two, SAME, 4.0, Steps(12, turning=0, first_doubt=8.0), start)
    is_back = directions(back.translation, good.translation) < 5
    assert is_back.sum() >= PAIRS / 2  # of some the relief turns inside out again
    best = best_of((away, back), one, two, SAME, 4.0)
    assert torch.equal(best.translation[is_back], back.translation[is_back])


def test_the_best_of_several_adjustments_is_taken_pair_by_pair() -> None:
    """One of them set out towards the other side; and one is lost."""
    truth = truth_of(motion=0.4)
    one, two = views_of(truth, noise=0.1)
    good = adjusted(one, two, SAME, 4.0, Steps(20))
    away = replace(good, translation=-good.translation)
    bad = adjusted(one, two, SAME, 4.0, Steps(2, turning=0, first_doubt=3.0), away.state())
    given = (one, two, SAME, 4.0)
    assert (misfit(good, *given) < misfit(bad, *given)).all()
    is_first = torch.arange(PAIRS) % 2 == 0

    def mixed(first: TwoCameras, second: TwoCameras) -> TwoCameras:
        pick = [
            torch.where(is_first.view(-1, *([1] * (value.ndim - 1))), value, getattr(second, name)) for name, value in vars(first).items()
        ]
        return TwoCameras(*pick)

    chosen = best_of((mixed(good, bad), mixed(bad, good)), *given)
    for name in ("rotation", "translation", "log_depth_2", "missed_1"):
        torch.testing.assert_close(getattr(chosen, name), getattr(good, name), msg=name)
    lost = replace(good, **{name: torch.full_like(value, torch.nan) for name, value in vars(good).items()})
    for pair in ((lost, good), (good, lost)):
        torch.testing.assert_close(best_of(pair, *given).translation, good.translation)


def test_what_is_misfit_falls_as_it_is_adjusted() -> None:
    one, two = views_of(truth_of(focals=(55.0, 80.0)), noise=0.3)
    given = (one, two, torch.tensor(40.0), 4.0)
    falls = torch.stack([misfit(adjusted(*given, Steps(count, is_last=False)), *given) for count in (1, 3, 30)])
    assert (falls[0] > falls[2]).all()
    assert (falls[1] >= falls[2] - 1e-2).all()
