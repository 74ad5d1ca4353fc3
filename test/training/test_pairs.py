"""Pairs with known geometry: points of one view where the other view's camera has them."""

from __future__ import annotations

import torch

from dust3r_ros.training.pairs import PairBatch, View, points_in


def view(depth: float, pose: torch.Tensor) -> View:
    shape = (1, 4, 6)
    intrinsics = torch.tensor([[5.0, 4.0, 2.5, 1.5]])
    return View(torch.zeros(1, 3, 4, 6), torch.full(shape, depth), torch.ones(shape, dtype=torch.bool), intrinsics, pose)


def turned(translation: tuple[float, float, float]) -> torch.Tensor:
    """A quarter turn about y: what lies ahead lies along x."""
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    pose[:3, 3] = torch.tensor(translation)
    return pose[None]


def test_points_are_pixels_times_depth_in_their_own_camera() -> None:
    own = turned((3, 2, 1))
    points = points_in(view(2.0, own), own)
    torch.testing.assert_close(points[0, 3, 5], torch.tensor([(5 - 2.5) / 5 * 2, (3 - 1.5) / 4 * 2, 2.0]))


def test_points_of_a_turned_view_lie_where_the_first_camera_has_them() -> None:
    points = points_in(view(2.0, turned((1, 0, 0))), torch.eye(4)[None])
    x, y = (5 - 2.5) / 5 * 2, (3 - 1.5) / 4 * 2
    torch.testing.assert_close(points[0, 3, 5], torch.tensor([2.0 + 1, y, -x]))


def test_swapping_is_only_of_the_views() -> None:
    batch = PairBatch(view(1.0, torch.eye(4)[None]), view(2.0, turned((0, 0, 0))))
    assert batch.swapped().first is batch.second
    assert batch.swapped().second is batch.first
