"""The adjustment of two cameras: on scenes whose truth is known it finds that, and what cannot be known stays what it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.matched_views import CELLS, PAIRS, SAME, degrees, directions, places_of, truth_of, view_of, views_of

from dust3r_ros.network import two_view_bundle
from dust3r_ros.network.two_view_bundle import Steps, adjusted
from dust3r_ros.network.two_view_reprojection import UNKNOWNS, MatchedView, PairState, linearised


@pytest.fixture(autouse=True, params=[False, True], ids=["loops", "torch"])
def _by_torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_view_bundle, "USE_TORCH", request.param)


@pytest.mark.parametrize("focals", [(70.0, 70.0), (55.0, 80.0)], ids=["one camera", "two cameras"])
def test_true_matches_give_the_true_cameras_and_depths(focals: tuple[float, float]) -> None:
    truth = truth_of(focals=focals)
    views = [replace(view, depth_weight=0.01 * view.depth_weight, focal_weight=0.01 * view.focal_weight) for view in views_of(truth)]
    one, two = views  # what was thought hardly weighs
    found = adjusted(one, two, SAME if focals[0] == focals[1] else torch.tensor(0.0), 4.0, Steps(30))
    solved = degrees(found.rotation, truth.rotation) < 0.1
    assert solved.sum() >= PAIRS - 1  # one of the scenes takes more steps
    assert directions(found.translation, truth.translation)[solved].max() < 1
    for said, true in ((found.log_focal_1, truth.log_focal_1), (found.log_focal_2, truth.log_focal_2)):
        assert (said - true)[solved].abs().max() < 0.01
    scale = (found.log_depth_1 - truth.log_depth_1).median(1, keepdim=True).values
    assert (found.log_depth_1 - truth.log_depth_1 - scale)[solved].abs().median() < 0.01
    assert (found.log_depth_2 - truth.log_depth_2 - scale)[solved].abs().median() < 0.01  # one scale for both views and the motion
    length = found.translation.norm(dim=-1).log() - truth.translation.norm(dim=-1).log()
    torch.testing.assert_close(length[solved], scale[solved, 0], atol=0.05, rtol=0)


def test_training_in_half_precision_does_not_round_the_motion_back() -> None:
    found = adjusted(*views_of(truth_of(), noise=0.1), SAME, 4.0, Steps(4))
    with torch.autocast("cpu", torch.bfloat16):
        back = found.swapped()
    torch.testing.assert_close(back.translation, found.swapped().translation, rtol=0, atol=0)
    assert back.translation.dtype == torch.float32


def test_inexact_matches_give_about_the_true_cameras() -> None:
    truth = truth_of()
    found = adjusted(*views_of(truth, noise=0.3), SAME, 4.0, Steps(12))
    assert degrees(found.rotation, truth.rotation).median() < 1
    assert directions(found.translation, truth.translation).median() < 8


def test_wrong_matches_are_left_behind() -> None:
    """One in eight leads anywhere, and says that it is sure."""
    truth = truth_of()
    views = []
    for view in views_of(truth, noise=0.1):
        found = view.found.clone()
        found[:, ::8] = places_of(7)[:, ::8]
        views.append(replace(view, found=found))
    found = adjusted(*views, SAME, 4.0, Steps(15))
    assert degrees(found.rotation, truth.rotation).median() < 1.5
    assert directions(found.translation, truth.translation).median() < 12
    assert found.missed_1[:, ::8].norm(dim=-1).median() > 10 * found.missed_1[:, 1::8].norm(dim=-1).median()


def test_the_other_order_finds_the_other_way_round() -> None:
    one, two = views_of(truth_of(), noise=0.2)
    there = adjusted(one, two, SAME, 4.0, Steps(25)).with_depths(0.0)
    back = adjusted(two, one, SAME, 4.0, Steps(25)).swapped().with_depths(0.0)
    assert degrees(there.rotation, back.rotation).max() < 0.2
    torch.testing.assert_close(there.translation, back.translation, atol=0.02, rtol=0)
    torch.testing.assert_close(there.log_focal_1, back.log_focal_1, atol=0.02, rtol=0)
    torch.testing.assert_close(there.log_depth_2, back.log_depth_2, atol=0.05, rtol=0)
    assert there.log_depth_1.mean().abs() < 0.5
    torch.testing.assert_close(torch.cat([there.log_depth_1, there.log_depth_2], 1).mean(1), torch.zeros(PAIRS), atol=1e-5, rtol=0)


def test_without_matches_everything_stays_as_it_was_thought() -> None:
    one, two = (replace(view, weight=0 * view.weight) for view in views_of(truth_of()))
    found = adjusted(one, two, SAME, 4.0, Steps(10))
    torch.testing.assert_close(found.rotation, torch.eye(3).expand(PAIRS, 3, 3))
    torch.testing.assert_close(found.translation, torch.zeros(PAIRS, 3))
    torch.testing.assert_close(found.log_depth_1, one.log_depth)
    torch.testing.assert_close(found.log_focal_2, two.log_focal)


@pytest.mark.parametrize("turn", [0.0, 0.2], ids=["identical views", "pure rotation"])
def test_without_parallax_depths_stay_as_they_were_thought(turn: float) -> None:
    truth = truth_of(motion=0.0, turn=turn)
    views = [replace(view, log_focal=truth.log_focal_1) for view in views_of(truth)]  # else bent depths and a motion may explain it
    found = adjusted(*views, SAME, 4.0, Steps(20))
    assert degrees(found.rotation, truth.rotation).max() < 0.5
    assert found.translation.norm(dim=-1).max() < 0.03
    assert found.log_depth_1.abs().max() < 0.1


def test_what_is_left_open_is_about_what_is_off() -> None:
    """Errors in units of their own sigma, over matches with as much noise as they say, to first order; the other order says the same."""
    truth, noise = truth_of(), 0.05
    views = [
        replace(view, weight=(view.weight > 0) / noise**2, log_depth=0 * view.log_depth, depth_weight=0 * view.weight + 1 / 0.3**2)
        for view in views_of(truth, noise=noise)
    ]
    found = adjusted(*views, SAME, 4.0, Steps(60))
    turned = (found.rotation - truth.rotation).norm(dim=(1, 2)) / 6**0.5  # of an axis, radians
    assert 0.1 < float((turned / found.sigma_turn).median()) < 3
    assert 0.1 < float(((found.log_focal_1 - truth.log_focal_1).abs() / found.sigma_focal_1).median()) < 2
    for side in ("1", "2"):
        off = getattr(found, f"log_depth_{side}") - getattr(truth, f"log_depth_{side}")
        off = (off - off.mean(1, keepdim=True)).abs() / getattr(found, f"log_sigma_{side}").exp()
        assert 0.3 < float(off.median()) < 1.4
    back = adjusted(*views[::-1], SAME, 4.0, Steps(60)).swapped()
    for name in ("sigma_turn", "sigma_focal_1", "log_sigma_1", "log_sigma_2"):
        one, other = getattr(back, name), getattr(found, name)
        assert float((one - other).abs().median() / other.abs().median()) < 0.1, name


def test_without_parallax_depths_are_as_open_as_they_were() -> None:
    truth = truth_of(motion=0.0)
    views = [replace(view, log_focal=truth.log_focal_1, depth_weight=0 * view.weight + 4.0) for view in views_of(truth)]
    near = [replace(view, depth_weight=0 * view.weight + 4.0) for view in views_of(truth_of(motion=0.4), noise=0.1)]
    still, moving = (adjusted(*pair, SAME, 4.0, Steps(20)) for pair in (views, near))
    torch.testing.assert_close(still.log_sigma_1.exp().median(), torch.tensor(0.5), atol=0.05, rtol=0)  # the prior's
    assert float(moving.log_sigma_1.exp().median()) < 0.2
    assert still.sigma_move.median() < 0.2
    grown = moving.with_depths(1.0)
    torch.testing.assert_close(grown.sigma_move / moving.sigma_move, grown.translation.norm(dim=1) / moving.translation.norm(dim=1))


def test_it_goes_on_from_where_it_was() -> None:
    one, two = views_of(truth_of(), noise=0.2)
    before = adjusted(one, two, SAME, 4.0, Steps(20))
    after = adjusted(one, two, SAME, 4.0, Steps(2, turning=0, first_doubt=3.0), before.state())
    assert degrees(before.rotation, after.rotation).max() < 0.2
    torch.testing.assert_close(after.log_depth_2, before.log_depth_2, atol=0.1, rtol=0)
    cold = adjusted(one, two, SAME, 4.0, Steps(2, turning=0, first_doubt=3.0))
    assert degrees(cold.rotation, after.rotation).max() > 1


def test_loops_make_the_steps_that_torch_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = views_of(truth_of(focals=(55.0, 80.0)), noise=0.3)
    two = replace(two, weight=two.weight.clone().index_fill_(1, torch.arange(9), 0.0), depth_weight=3 * two.depth_weight)
    one, two = (replace(view, depth_weight=200 * view.depth_weight) for view in (one, two))  # else rounding is made large
    found = []
    for by_torch in (False, True):
        monkeypatch.setattr(two_view_bundle, "USE_TORCH", by_torch)
        found.append([adjusted(one, two, torch.tensor(40.0), 4.0, Steps(count)) for count in (1, 4)])
        found[-1].append(adjusted(one, two, torch.tensor(40.0), 4.0, Steps(4, is_last=False)))
    for loops, operations in zip(*found, strict=True):
        torch.testing.assert_close(loops.missed_1, operations.missed_1, atol=0.2, rtol=1e-2)
        torch.testing.assert_close(loops.missed_2, operations.missed_2, atol=0.2, rtol=1e-2)
        for name in ("rotation", "translation", "log_focal_1", "log_focal_2", "log_depth_1", "log_depth_2"):
            torch.testing.assert_close(getattr(loops, name), getattr(operations, name), atol=2e-3, rtol=0, msg=name)


def test_a_pair_of_numbers_that_are_none_is_lost_alone() -> None:
    one, two = views_of(truth_of(), noise=0.2)
    found = one.found.clone()
    found[1, 5] = torch.nan
    broken = adjusted(replace(one, found=found), two, SAME, 4.0, Steps(6))
    whole = adjusted(one, two, SAME, 4.0, Steps(6))
    assert not bool(torch.isfinite(broken.rotation[1]).any())
    kept = [0, 2, 3, 4, 5]
    torch.testing.assert_close(broken.rotation[kept], whole.rotation[kept], atol=1e-3, rtol=0)


def test_one_pair_does_not_change_another() -> None:
    one, two = views_of(truth_of(), noise=0.2)
    whole = adjusted(one, two, SAME, 4.0, Steps(8))
    alone = adjusted(*(MatchedView(*(value[2:3] for value in vars(view).values())) for view in (one, two)), SAME, 4.0, Steps(8))
    torch.testing.assert_close(alone.rotation, whole.rotation[2:3], atol=1e-3, rtol=0)


def test_derivatives_are_those_of_the_places() -> None:
    """Every column beside a difference quotient of how the pair's unknowns move the places, in float64."""
    truth = truth_of()
    for is_first in (True, False):
        view = view_of(truth if is_first else truth.swapped(), 3)
        view = MatchedView(*(value.double() for value in vars(view).values()))
        state = PairState(
            *(value.double() for value in (truth.rotation, truth.translation, truth.log_focal_1, truth.log_focal_2)),
            torch.zeros(PAIRS).double(), truth.log_depth_1.double(), truth.log_depth_2.double(),
        )  # fmt: skip
        at = linearised(state, view, is_first, 3.0)
        for column in range(UNKNOWNS):
            moved = torch.zeros(PAIRS, UNKNOWNS).double()
            moved[:, column] = 1e-5
            turned = two_view_bundle._rotation(moved[:, 3:6])
            after = replace(
                state, rotation=turned @ state.rotation, translation=(turned @ state.translation[..., None])[..., 0] + moved[:, :3],
                log_focal_1=state.log_focal_1 + moved[:, 6], log_focal_2=state.log_focal_2 + moved[:, 7],
                log_depth_2=state.log_depth_2 + moved[:, 8:],
            )  # fmt: skip
            quotient = (linearised(after, view, is_first, 3.0).residual - at.residual) / 1e-5
            torch.testing.assert_close(at.jacobian[..., column], quotient, atol=0.05, rtol=1e-3)
        deeper = replace(state, log_depth_1=state.log_depth_1 + 1e-5, log_depth_2=state.log_depth_2 + 1e-5)
        quotient = (linearised(deeper, view, is_first, 3.0).residual - at.residual) / 1e-5
        torch.testing.assert_close(at.by_depth, quotient, atol=0.05, rtol=1e-3)


def test_systems_are_solved_by_hand_as_by_the_library() -> None:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(20, 9, 30, generator=generator)
    left, right = factor @ factor.transpose(1, 2), torch.randn(20, 9, 1, generator=generator)
    torch.testing.assert_close(two_view_bundle._eliminated_by_hand(left, right), torch.linalg.solve(left, right), atol=1e-4, rtol=1e-3)


def test_what_comes_of_it_teaches_matches_weights_and_priors() -> None:
    one, two = views_of(truth_of(), noise=0.3)
    for view in (one, two):
        for value in vars(view).values():
            value.requires_grad_(value.is_leaf and value.is_floating_point())
    found = adjusted(one, two, SAME, 4.0, Steps(6, learned=2))
    (found.translation.square().sum() + found.log_depth_1.square().mean() + found.log_focal_2.sum()).backward()  # type: ignore[no-untyped-call]
    for view in (one, two):
        for name in ("found", "weight", "log_depth", "depth_weight", "log_focal", "focal_weight"):
            gradient = getattr(view, name).grad
            assert gradient is not None, name
            assert bool(torch.isfinite(gradient).all()), name
            assert bool(gradient.abs().sum() > 0), name


def test_nonsense_stays_finite() -> None:
    """Matches at random, behind cameras, far out of the picture, and depths of all sizes."""
    generator = torch.Generator().manual_seed(3)
    views = []
    for seed in (1, 2):
        view = view_of(truth_of(seed=seed), seed)
        wild = 300 * torch.randn(PAIRS, CELLS, 2, generator=generator)
        views.append(replace(view, found=wild, log_depth=4 * torch.randn(PAIRS, CELLS, generator=generator), weight=100 * view.weight))
    found = adjusted(*views, SAME, 4.0, Steps(25))
    for name, value in vars(found).items():
        assert bool(torch.isfinite(value).all()), name
