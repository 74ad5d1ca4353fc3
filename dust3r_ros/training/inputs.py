"""From a batch of pairs to what an objective takes: images, truth in both orders, hidden patches, correspondences; on the data's device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dust3r_ros.network import random_hidden
from dust3r_ros.training.losses import PointmapTruth
from dust3r_ros.training.pairs import PairBatch, PairSource, View, points_in
from dust3r_ros.training.recipe import Recipe
from dust3r_ros.training.schedule import Stage

HIDING, MATCHING, TELLING = 1, 2, 4  # what a step's own random numbers are drawn for

Correspondences = tuple[Tensor, Tensor, Tensor]  # pixels of view 1 [B, M, 2], of view 2 [B, M, 2], valid [B, M]
FindCorrespondences = Callable[[PairBatch, int, torch.Generator], Correspondences]


@dataclass(frozen=True, eq=False)
class Inputs:
    images_1: Tensor  # [B, 3, H1, W1]
    images_2: Tensor  # [B, 3, H2, W2]
    truths: tuple[PointmapTruth, ...] = ()  # one of both orders after one another where the views have one size, else one of each
    hidden: Tensor | None = None  # [B, N] bool, for completion
    matches: Correspondences | None = None
    lenses: tuple[Tensor, Tensor] | None = None  # [B, 3] of both views, as `ImageTokens` has them
    views: tuple[View, View] | None = None  # where pictures teach one by one

    def tensors(self) -> list[Tensor]:
        found = [self.images_1, self.images_2, *(value for truth in self.truths for value in vars(truth).values())]
        views = [value for view in self.views or () for value in vars(view).values()]
        return [*found, *([] if self.hidden is None else [self.hidden]), *(self.matches or ()), *(self.lenses or ()), *views]


@dataclass(frozen=True)
class InputMaker:
    """Inputs that the step's number decides."""

    recipe: Recipe
    source: PairSource
    find: FindCorrespondences | None = None  # for networks with descriptors
    patch_size: int = 16
    pictures: PairSource | None = None  # where these teach one by one: both views of each pair

    @torch.no_grad()
    def make(self, step: int, part: int, stage: Stage) -> Inputs:
        """Those of pass `part` of step `step`: every pass has a batch of its own."""
        index = step * self.recipe.data.accumulate + part
        if stage == "alone":
            assert self.pictures is not None
            batch = self.pictures.batch(index)
            return Inputs(batch.first.images, batch.second.images, views=(batch.first, batch.second))
        batch = self.source.batch(index)
        device = batch.first.images.device
        if stage == "completion":
            count = batch.first.images[0, 0].numel() // self.patch_size**2
            generator = torch.Generator(device).manual_seed(seed_of(self.recipe.seed, index, HIDING))
            hidden = random_hidden(len(batch.first.images), count, self.recipe.objective.hidden, generator)
            return Inputs(batch.first.images, batch.second.images, hidden=hidden)
        matches = None
        if self.find is not None:
            generator = torch.Generator(device).manual_seed(seed_of(self.recipe.seed, index, MATCHING))
            matches = self.find(batch, self.recipe.objective.correspondences, generator)
        return Inputs(batch.first.images, batch.second.images, truths_of(batch), matches=matches, lenses=self._lenses(batch, index))

    def _lenses(self, batch: PairBatch, index: int) -> tuple[Tensor, Tensor] | None:
        """Of both views of the pairs that are told theirs."""
        share = self.recipe.objective.known_lens
        if share == 0:
            return None
        device = batch.first.images.device
        generator = torch.Generator(device).manual_seed(seed_of(self.recipe.seed, index, TELLING))
        is_told = torch.rand(len(batch.first.images), 1, generator=generator, device=device) < share
        return _lens(batch.first, is_told), _lens(batch.second, is_told)


def truths_of(batch: PairBatch) -> tuple[PointmapTruth, ...]:
    """Both orders of each pair."""
    truths = [_truth(batch), _truth(batch.swapped())]
    if batch.first.depth.shape != batch.second.depth.shape:
        return tuple(truths)
    return (PointmapTruth(*(torch.cat(values) for values in zip(*(vars(truth).values() for truth in truths), strict=True))),)


def seed_of(*numbers: int) -> int:
    """One seed of several numbers, such that others give others."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _lens(view: View, is_told: Tensor) -> Tensor:
    height, width = view.images.shape[2:]
    fx, fy, cx, cy = view.intrinsics.unbind(1)
    lens = torch.stack([(fx * fy).sqrt(), cx - (width - 1) / 2, cy - (height - 1) / 2], dim=1)
    return torch.where(is_told, lens, 0.0)


def _truth(batch: PairBatch) -> PointmapTruth:
    first, second = batch.first, batch.second
    pose = torch.linalg.inv(first.pose) @ second.pose
    points = points_in(first, first.pose), points_in(second, first.pose)
    return PointmapTruth(*points, first.valid, second.valid, pose, first.intrinsics, second.intrinsics)
