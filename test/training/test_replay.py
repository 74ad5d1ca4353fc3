"""Pictures that come again are of the same world, seen otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from dust3r_ros.training.pairs import PairBatch, View
from dust3r_ros.training.replay import CLOSEST, KEPT, Replayed

HEIGHT, WIDTH, FOCAL = 48, 64, 50.0


def _wall(number: int) -> View:
    """A slanted wall whose grey says its inverse depth; the camera's principal point is not the picture's middle."""
    cx, cy = WIDTH / 2 + 1.5, HEIGHT / 2 - 2.0
    u, v = torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy")
    inverse = 0.5 + 0.2 * (u - cx) / FOCAL + 0.1 * (v - cy) / FOCAL
    grey = (inverse * 255).round().clamp(0, 255) / 127.5 - 1
    sky = v < 4
    intrinsics = torch.tensor([FOCAL + number, FOCAL + number, cx, cy]).expand(16, 4)
    return View(
        grey.expand(16, 3, -1, -1).clone(), (1 / inverse).where(~sky, 0.0).expand(16, -1, -1).clone(), (~sky).expand(16, -1, -1).clone(),
        intrinsics.clone(), torch.eye(4).expand(16, 4, 4).clone(),
    )  # fmt: skip


@dataclass
class Walls:
    asked: list[int] = field(default_factory=list)

    def batch(self, step: int) -> PairBatch:
        self.asked.append(step)
        return PairBatch(_wall(step), _wall(step + 1000))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_batch_is_made_once_and_comes_so_many_times(accumulate: int) -> None:
    walls = Walls()
    source = Replayed(walls, 3, seed=1, accumulate=accumulate)
    group = KEPT // accumulate * accumulate
    batches = [source.batch(step) for step in range(3 * group + accumulate)]
    assert walls.asked == list(range(group + accumulate))
    assert [bool(batch.first.pose.isfinite().all()) for batch in batches] == [True] * group + [False] * 2 * group + [True] * accumulate
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


def test_what_comes_again_is_the_same_wall() -> None:
    """By the varied intrinsics all pixels still lie on one plane of the same shape, or on its mirror image."""
    view = Replayed(Walls(), 2, seed=1).batch(KEPT).first
    fx, fy, cx, cy = (value[:, None, None] for value in view.intrinsics.unbind(1))
    assert ((fx[:, 0, 0] >= FOCAL) & (fx[:, 0, 0] <= FOCAL / CLOSEST)).all()
    u, v = torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy")
    slopes = (0.2 * (u - cx) / fx, 0.1 * (v - cy) / fy)
    either = torch.stack([1 / (0.5 + side * slopes[0] + slopes[1]) for side in (1, -1)])
    off = ((either - view.depth).abs() / view.depth).masked_fill(~view.valid, 0.0).amax((2, 3))
    assert (off.amin(0) < 0.01).all()  # the nearest pixel's depth
    assert 3 < (off.argmin(0)).sum() < 13  # some are mirrored


def test_the_light_changes_and_pictures_stay_pictures() -> None:
    batch = Replayed(Walls(), 2, seed=1).batch(KEPT)
    for view in vars(batch).values():
        assert view.images.min() >= -1
        assert view.images.max() <= 1
        assert view.images.isfinite().all()
        assert view.images.mean((1, 2, 3)).std() > 0.02
        assert (view.images[:, 0] - view.images[:, 2]).abs().mean() > 0.005  # the wall was grey
    assert not torch.equal(batch.first.images, batch.second.images)
