"""Batches that come again are of the same world, seen otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from dust3r_ros.training.pairs import PairBatch, View, points_in
from dust3r_ros.training.replay import CLOSEST, KEPT, Replayed

COUNT, HEIGHT, WIDTH, FOCAL = 16, 48, 64, 50.0
NORMAL, DISTANCE = torch.tensor([0.3, -0.2, 1.0]), 3.0  # of a wall: NORMAL x = DISTANCE in the world
SECOND = torch.tensor([[0.8, 0.0, 0.6, 0.4], [0.0, 1.0, 0.0, -0.3], [-0.6, 0.0, 0.8, 0.2], [0.0, 0.0, 0.0, 1.0]])


def _wall(focal: float, pose: torch.Tensor) -> View:
    """A camera before the wall whose principal point is not the picture's middle; the upper four rows see nothing."""
    cx, cy = WIDTH / 2 + 1.5, HEIGHT / 2 - 2.0
    u, v = torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy")
    rays = torch.stack([(u - cx) / focal, (v - cy) / focal, torch.ones(HEIGHT, WIDTH)], dim=-1)
    depth = (DISTANCE - NORMAL @ pose[:3, 3]) / (rays @ pose[:3, :3].T @ NORMAL)
    known = v >= 4
    grey = (40 * depth).round().clamp(0, 255) / 127.5 - 1
    shown = grey.expand(3, -1, -1), torch.where(known, depth, 0.0), known, torch.tensor([focal, focal, cx, cy]), pose
    return View(*(value.expand(COUNT, *value.shape).clone() for value in shown))


@dataclass
class Walls:
    asked: list[int] = field(default_factory=list)

    def batch(self, step: int) -> PairBatch:
        self.asked.append(step)
        return PairBatch(_wall(FOCAL + step, torch.eye(4)), _wall(FOCAL + step + 5, SECOND))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_batch_is_made_once_and_comes_so_many_times(accumulate: int) -> None:
    walls = Walls()
    source = Replayed(walls, 3, seed=1, accumulate=accumulate)
    group = KEPT // accumulate * accumulate
    batches = [source.batch(step) for step in range(3 * group + accumulate)]
    assert walls.asked == list(range(group + accumulate))
    made = [batch.first.intrinsics[0, 0].item() - FOCAL for batch in batches]
    assert made == [float(at % group) for at in range(3 * group)] + [float(group + at) for at in range(accumulate)]
    assert len(source._kept) == accumulate  # those of the first group are forgotten


def test_the_first_time_it_is_what_it_was() -> None:
    for view, made in zip(vars(Replayed(Walls(), 2, seed=1).batch(5)).values(), vars(Walls().batch(5)).values(), strict=True):
        for name in vars(made):
            torch.testing.assert_close(getattr(view, name), getattr(made, name))


def test_a_step_is_the_same_for_whoever_begins_there() -> None:
    unbroken, resumed = Replayed(Walls(), 4, seed=1), Replayed(Walls(), 4, seed=1)
    for step in range(2 * KEPT + 4):
        batch = unbroken.batch(step)
    again = resumed.batch(2 * KEPT + 3)
    assert torch.equal(batch.first.images, again.first.images)
    assert torch.equal(batch.second.depth, again.second.depth)
    assert not torch.equal(batch.first.images, unbroken.batch(KEPT + 3).first.images)
    assert not torch.equal(batch.first.images, Replayed(Walls(), 4, seed=2).batch(2 * KEPT + 3).first.images)


@pytest.mark.parametrize("closest", [1.0, CLOSEST])
def test_both_views_of_what_comes_again_see_one_wall(closest: float) -> None:
    """Its points by both views' depths, intrinsics and poses lie on the plane, in the world or in its mirror image."""
    batch = Replayed(Walls(), 2, seed=1, closest=closest).batch(KEPT)
    normals = torch.stack([NORMAL, NORMAL * torch.tensor([-1.0, 1.0, 1.0])])
    world = torch.eye(4).expand(COUNT, 4, 4)
    off = torch.stack([
        ((points_in(view, world) @ normals.T - DISTANCE).abs() * view.valid[..., None]).amax((1, 2)) for view in vars(batch).values()
    ])  # [2 views, COUNT, 2 worlds]  # fmt: skip
    tolerance = 1e-4 if closest == 1 else 0.08  # the nearest pixel's depth
    assert (off.amax(0).amin(-1) < tolerance).all()
    assert 3 < off.amax(0).argmin(-1).sum() < COUNT - 3  # some are mirrored, and then both views are
    focals = batch.first.intrinsics[:, 0] / FOCAL
    torch.testing.assert_close(batch.second.intrinsics[:, 1] / (FOCAL + 5), focals)
    assert ((focals > 1 - 1e-5) & (focals < 1 / closest + 1e-5)).all()
    assert bool(focals.std() > 0.02) == (closest < 1)


def test_the_light_changes_and_pictures_stay_pictures() -> None:
    batch = Replayed(Walls(), 2, seed=1).batch(KEPT)
    for view in vars(batch).values():
        assert view.images.min() >= -1
        assert view.images.max() <= 1
        assert view.images.isfinite().all()
        assert view.images.mean((1, 2, 3)).std() > 0.02
        assert (view.images[:, 0] - view.images[:, 2]).abs().mean() > 0.005  # the wall was grey
    made, relit = ([view.images.mean((1, 2, 3)) for view in vars(one).values()] for one in (Walls().batch(0), batch))
    gains = [(after + 1) / (before + 1) for before, after in zip(made, relit, strict=True)]
    assert torch.corrcoef(torch.stack(gains))[0, 1].abs() < 0.9  # each view has a light of its own
