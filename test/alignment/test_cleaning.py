"""Cleaning: what hides in front of other views' depth loses its confidence, what is honest keeps it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from dust3r_ros.alignment import AlignmentError, clean_confidences, confidence_threshold, confident
from dust3r_ros.simulation import SimulatedView, room_sequence

HEIGHT, WIDTH, FOCAL = 12, 16, 20.0


class Spoilt(NamedTuple):
    """The room's views: depths and confidences with known lies."""

    depths: list[Tensor]
    confidences: list[Tensor]
    floaters: list[Tensor]
    ghosts: list[Tensor]

    @property
    def honest(self) -> Tensor:
        return ~torch.stack([f | g for f, g in zip(self.floaters, self.ghosts, strict=True)])


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(frames=30, width=128, height=96, seed=3))[::6]


def spoil(views: list[SimulatedView], noise: float) -> Spoilt:
    """Four patches in each view at 60 % of the depth, a wide layer in view 1 at 90 %; both less sure than the rest."""
    rng = np.random.default_rng(0)
    depths, confidences, floaters, ghosts = [], [], [], []
    for n, view in enumerate(views):
        shape = view.depth.shape
        floats, ghost = np.zeros(shape, bool), np.zeros(shape, bool)
        for row, column in zip(rng.integers(24, 72, 4), rng.integers(24, 96, 4), strict=True):
            floats[row : row + 8, column : column + 8] = True
        if n == 1:
            ghost[24:64, 32:88] = True
            ghost &= ~floats
        depth = view.depth * (1 + noise * rng.standard_normal(shape)) * np.where(floats, 0.6, np.where(ghost, 0.9, 1.0))
        sure = np.where(floats, 3.0, np.where(ghost, 2.0, rng.uniform(4, 8, shape)))
        depths.append(torch.from_numpy(depth.astype(np.float32)))
        confidences.append(torch.from_numpy(sure.astype(np.float32)))
        floaters.append(torch.from_numpy(floats))
        ghosts.append(torch.from_numpy(ghost))
    return Spoilt(depths, confidences, floaters, ghosts)


def clean_views(views: list[SimulatedView], spoilt: Spoilt) -> Tensor:
    camera = views[0].camera
    poses = np.stack([view.pose for view in views])
    centres = [(camera.cx, camera.cy)] * len(views)
    return torch.stack(clean_confidences(spoilt.depths, spoilt.confidences, poses, [camera.fx] * len(views), centres))


@pytest.mark.parametrize(("noise", "kept", "found_floaters", "found_ghosts"), [(0.0, 0.9999, 0.95, 0.93), (0.02, 0.99, 0.95, 0.9)])
def test_floaters_and_a_ghost_layer_go_and_the_room_stays(
    views: list[SimulatedView], noise: float, kept: float, found_floaters: float, found_ghosts: float
) -> None:
    spoilt = spoil(views, noise)
    cleaned = clean_views(views, spoilt)
    same = cleaned == torch.stack(spoilt.confidences)
    assert (same | (cleaned == 1)).all()
    assert same[spoilt.honest].float().mean() >= kept
    assert (~same)[torch.stack(spoilt.floaters)].float().mean() >= found_floaters
    assert (~same)[torch.stack(spoilt.ghosts)].float().mean() >= found_ghosts


def test_the_order_of_the_views_does_not_matter_and_nothing_given_is_changed(views: list[SimulatedView]) -> None:
    spoilt = spoil(views, 0.02)
    before = [t.clone() for t in (*spoilt.depths, *spoilt.confidences)]
    forwards = clean_views(views, spoilt)
    assert all(torch.equal(a, b) for a, b in zip(before, (*spoilt.depths, *spoilt.confidences), strict=True))
    backwards = clean_views(views[::-1], Spoilt(*(part[::-1] for part in spoilt)))
    assert (forwards != backwards.flip(0)).sum() <= 2  # of 61,440: sums are rounded in another order
    assert torch.equal(forwards, clean_views(views, spoilt))


def walls(*layers: tuple[float, float]) -> tuple[list[Tensor], list[Tensor]]:
    """Views from one place, each of a plane: (depth, confidence)."""
    return [torch.full((HEIGHT, WIDTH), d) for d, _ in layers], [torch.full((HEIGHT, WIDTH), c) for _, c in layers]


def clean(depths: list[Tensor], confidences: list[Tensor], **more: object) -> list[Tensor]:
    given: dict = {"poses": np.stack([np.eye(4)] * len(depths)), "focals": [FOCAL] * len(depths)} | more
    return clean_confidences(depths, confidences, **given)


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([(1.0, 3.0), (2.0, 4.0)], [1.0, 4.0]),  # in front, and less sure
        ([(1.0, 4.0), (2.0, 3.0)], [4.0, 3.0]),  # in front, but surer
        ([(2.0, 3.0), (1.0, 4.0)], [3.0, 4.0]),  # behind is only hidden
        ([(1.96, 3.0), (2.0, 4.0)], [3.0, 4.0]),  # within the tolerance
        ([(1.0, 7.0), (2.0, 3.0), (2.0, 3.0)], [1.0, 3.0, 3.0]),  # two together outweigh: 3 x 3 > 7
        ([(1.0, 3.0), (2.0, 4.0), (1.0, 3.0)], [3.0, 4.0, 3.0]),  # two together are believed: 3 x 3 > 4
    ],
)
def test_the_vote_by_hand(layers: list[tuple[float, float]], left: list[float]) -> None:
    cleaned = clean(*walls(*layers))
    assert [set(c.flatten().tolist()) for c in cleaned] == [{value} for value in left]


def test_only_neighbours_have_a_say() -> None:
    depths, confidences = walls((1.0, 3.0), (2.0, 4.0), (2.0, 4.0))
    assert (clean(depths, confidences, neighbours=[[], [0], [1]])[0] == 3).all()
    assert (clean(depths, confidences, neighbours=[[0, 2], [], []])[0] == 1).all()


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_an_edge_may_be_one_pixel_off(shift: int) -> None:
    """A box before a wall, in the other view `shift` pixels smaller on every side, and surer."""
    depths, confidences = walls((2.0, 3.0), (2.0, 9.0))
    depths[0][3:9, 4:12] = 1.0
    depths[1][3 + shift : 9 - shift, 4 + shift : 12 - shift] = 1.0
    lost = clean(depths, confidences)[0] == 1
    rim = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    rim[3:9, 4:12] = shift == 2  # of two pixels the outer one
    rim[4:8, 5:11] = False
    assert torch.equal(lost, rim)


def test_views_of_different_sizes_and_principal_points() -> None:
    """One point at 2 m before a wall at 4 m; the other camera stands 0.5 m to the right and has twice the pixels."""
    depth, larger = torch.full((HEIGHT, WIDTH), 4.0), torch.full((2 * HEIGHT, 2 * WIDTH), 4.0)
    depth[6, 8] = 2.0  # x = (8 - 7.5) / 20 * 2 = 0.05 m, y = 0.05 m
    confidences = [torch.full_like(depth, 3.0), torch.full_like(larger, 5.0)]
    poses = np.stack([np.eye(4)] * 2)
    poses[1, 0, 3] = 0.5
    centres = [(7.5, 5.5), (20.0, 11.0)]
    given = {"poses": poses, "focals": [20.0, 40.0], "principal_points": centres}
    lost = clean([depth, larger], confidences, **given)[0] == 1
    assert lost.nonzero().tolist() == [[6, 8]]
    larger[12, 11] = 2.0  # where the other view sees it too: u = 40 (0.05 - 0.5) / 2 + 20, v = 40 * 0.05 / 2 + 11
    assert (clean([depth, larger], confidences, **given)[0] == 3).all()


def test_what_lies_behind_or_beside_the_other_camera_is_left_alone() -> None:
    depths, confidences = walls((1.0, 3.0), (9.0, 4.0))
    for aside in (np.diag([1.0, -1.0, -1.0, 1.0]), np.eye(4)):
        aside[0, 3] = 50.0 * aside[1, 1] + 50.0  # beside it; or at the same place, turned round
        assert (clean(depths, confidences, poses=np.stack([np.eye(4), aside]))[0] == 3).all()


@pytest.mark.parametrize(
    ("depth", "sure"), [(0.0, 4.0), (-1.0, 4.0), (np.nan, 4.0), (np.inf, 4.0), (9.0, np.nan), (9.0, np.inf), (9.0, 1.0)]
)
def test_nothing_known_says_nothing(depth: float, sure: float) -> None:
    depths, confidences = walls((2.0, 3.0), (4.0, 4.0))
    depths[1][5, 5], confidences[1][5, 5] = depth, sure
    cleaned = clean(depths, confidences)
    silent = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    silent[4:7, 4:7] = True
    assert torch.equal(cleaned[0] == 3, silent)
    assert cleaned[1][5, 5] == 1


def test_a_view_speaks_against_a_point_with_the_least_confidence_around() -> None:
    depths, confidences = walls((2.0, 3.0), (4.0, 4.0))
    confidences[1][5, 5] = 2.0
    weak = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    weak[4:7, 4:7] = True
    assert torch.equal(clean(depths, confidences)[0] == 3, weak)


def test_one_view_and_no_view_and_views_that_know_nothing() -> None:
    assert clean_confidences([], [], np.zeros((0, 4, 4)), []) == []
    assert (clean(*walls((2.0, 3.0)))[0] == 3).all()
    assert [c.unique().tolist() for c in clean(*walls((2.0, 1.0), (4.0, 1.0)))] == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"focals": [FOCAL]}, "focals has 1 entries for 2"),
        ({"neighbours": [[1], [2]]}, r"neighbours\[1\] names view 2 of 2"),
        ({"tolerance": 3.0}, "tolerance of 3.0"),
        ({"confidences": [torch.ones(2, 2)] * 2}, "view 0: depth is"),
    ],
)
def test_what_does_not_fit_is_named(wrong: dict, message: str) -> None:
    depths, confidences = walls((1.0, 3.0), (2.0, 4.0))
    given = {"depths": depths, "confidences": confidences, "poses": np.stack([np.eye(4)] * 2), "focals": [FOCAL] * 2}
    with pytest.raises(AlignmentError, match=message):
        clean_confidences(**(given | wrong))


def test_confident_pixels_are_known_sure_and_not_sky() -> None:
    depth = torch.tensor([[2.0, 0.0, 2.0, np.nan, 2.0, 2.0]])
    confidence = torch.tensor([[5.0, 5.0, 1.0, 5.0, 2.0, 5.0]])
    sky = np.array([[False, False, False, False, False, True]])
    assert confident(depth, confidence).tolist() == [[True, False, False, False, True, True]]
    assert confident(depth, confidence, 5.0, sky).tolist() == [[True, False, False, False, False, False]]


def test_the_threshold_leaves_out_the_least_sure_share_of_what_is_known() -> None:
    known = torch.linspace(2.0, 12.0, 101)[torch.randperm(101, generator=torch.Generator().manual_seed(0))]
    unknown = torch.tensor([[1.0, 1.0], [np.nan, np.inf]])
    assert confidence_threshold([known[:100].reshape(10, 10), unknown, known[100:][None]], share=0.3) == pytest.approx(5.0)
    assert confidence_threshold([unknown]) == confidence_threshold([]) == 1.0
    with pytest.raises(AlignmentError, match="share of 30"):
        confidence_threshold([unknown], share=30)
