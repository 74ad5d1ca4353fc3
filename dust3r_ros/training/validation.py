"""How good the averaged weights are on pairs that were never trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dust3r_ros.network import TwoViewNetwork, TwoViewOutput
from dust3r_ros.training.inputs import truths_of
from dust3r_ros.training.losses import pointmap_loss
from dust3r_ros.training.pairs import PairBatch, PairSource, View
from dust3r_ros.training.recipe import Recipe
from dust3r_ros.training.records import HELD_OUT, Table

GOOD_RATIO = 1.25


class Validation:
    """The same held-out batches every time, one order of each pair."""

    def __init__(self, recipe: Recipe, source: PairSource, output: Path, precision: torch.dtype) -> None:
        self.recipe, self.source, self.precision = recipe, source, precision
        self.output = output
        self.table = Table(output / "held_out.csv", HELD_OUT)
        self.last: dict[str, float] = {}

    def begin(self, step: int) -> None:
        self.table.begin(step)

    @torch.no_grad()
    def look(self, network: TwoViewNetwork, step: int, minutes: float, pairs: int) -> dict[str, float]:
        """Measures of `HELD_OUT` (pointmap error; depth of view 1 after the median's scale), written to the table; pictures beside."""
        sums = []
        for index in range(self.recipe.records.validation_batches):
            batch = self.source.batch(index)
            output = self._predicted(network, batch)
            sums.append(torch.stack(measured(output, batch, self.recipe)))
            if index == 0 and self.recipe.records.pictures:
                self._draw(output, batch, step)
        loss, error, confidence, abs_rel, delta = torch.stack(sums).mean(0).tolist()
        self.last = {"loss": loss, "error": error, "confidence": confidence, "abs_rel": abs_rel, "delta_1_25": delta}
        self.table.add({"step": step, "minutes": minutes, "pairs": pairs, **self.last})
        return self.last

    def _predicted(self, network: TwoViewNetwork, batch: PairBatch) -> TwoViewOutput:
        with torch.autocast(batch.first.images.device.type, self.precision, enabled=self.precision != torch.float32):
            return network(batch.first.images, batch.second.images)

    def _draw(self, output: TwoViewOutput, batch: PairBatch, step: int) -> None:
        from dust3r_ros.training.pictures import draw_curves, draw_samples

        draw_samples(output, batch, self.recipe.records.pictures, self.output / "samples" / f"step_{step:09d}.png")
        draw_curves(self.output)


def measured(output: TwoViewOutput, batch: PairBatch, recipe: Recipe) -> list[Tensor]:
    """Loss, pointmap error, confidence, and view 1's AbsRel and share of pixels within a factor of 1.25, as tensors of no dimension."""
    truth = truths_of(batch)[0]
    if len(truth.points_1) != len(batch.first.images):
        truth = type(truth)(*(value.chunk(2)[0] for value in vars(truth).values()))
    objective = recipe.objective
    loss = pointmap_loss(
        (output.points_1, output.points_2), (output.confidence_1, output.confidence_2), truth, objective.alpha, objective.metric
    )
    abs_rel, delta = depth_errors(output.points_1[..., 2], batch.first)
    return [loss.loss, loss.error, loss.confidence, abs_rel, delta]


def depth_errors(depth: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """AbsRel, and the share with a ratio below 1.25, of depth [B, H, W] brought to the truth's median; means over pairs."""
    known = view.valid & (view.depth > 0)
    nothing = torch.full_like(depth, float("nan"))
    predicted, true = torch.where(known, depth, nothing).flatten(1), torch.where(known, view.depth, nothing).flatten(1)
    scale = true.nanmedian(1, keepdim=True).values / predicted.nanmedian(1, keepdim=True).values.clamp_min(1e-8)
    ratio = predicted * scale / true
    good = (torch.maximum(ratio, 1 / ratio.clamp_min(1e-8)) < GOOD_RATIO).float()
    counted = ~ratio.isnan()
    share = (good * counted).sum(1) / counted.sum(1).clamp_min(1)
    return (ratio - 1).abs().nanmean(1).nanmean(), share.mean()
