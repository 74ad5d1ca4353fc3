"""Batches that come several times: mirrored, in another light, pictures one by one closer too.

Making a picture takes a CPU a good part of the time that learning from it does, or more than that. Up to about four times, data that is
seen again is worth almost what new data is (Muennighoff et al., Scaling Data-Constrained Language Models, NeurIPS 2023), and here it is
never seen again as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.training.inputs import seed_of
from dust3r_ros.training.pairs import PairBatch, PairSource, View

KEPT = 64  # batches, of which each comes once before any comes again
CLOSEST = 0.75  # least share of its width that is left of a picture that teaches by itself
STOPS, GAMMA, COLOUR = 0.3, 0.12, 0.06  # standard deviations of the light's: powers of two, of the logarithm, of red's and blue's share
NUMBERS = 4  # normal numbers that a picture's light takes
VARYING = 7  # what random numbers are drawn for


@dataclass(eq=False)
class Replayed:
    """A `PairSource` that gives each batch of another one `times` times, the first time as it is. The step's number decides it.

    `closest` below 1: pictures also come up to so much closer, and their depth is that of the nearest pixel.
    """

    source: PairSource
    times: int
    seed: int
    accumulate: int = 1  # batches of a step of the optimiser, which stay together
    closest: float = 1.0
    _kept: dict[int, PairBatch] = field(default_factory=dict)

    def batch(self, step: int) -> PairBatch:
        steps = max(1, KEPT // self.accumulate)
        group, within = divmod(step // self.accumulate, steps * self.times)
        turn, which = divmod(within, steps)
        first = group * steps * self.accumulate
        index = first + which * self.accumulate + step % self.accumulate
        for old in [known for known in self._kept if known < first]:
            del self._kept[old]
        if index not in self._kept:
            self._kept[index] = _packed(self.source.batch(index))
        batch = _unpacked(self._kept[index])
        return batch if turn == 0 else _varied(batch, self.closest, seed_of(self.seed, VARYING, step))


def _packed(batch: PairBatch) -> PairBatch:
    """Pictures in the 8 bits that they were made of."""
    return PairBatch(*(_with_images(view, ((view.images + 1) * 127.5).round().to(torch.uint8)) for view in vars(batch).values()))


def _unpacked(batch: PairBatch) -> PairBatch:
    return PairBatch(*(_with_images(view, view.images.float() / 127.5 - 1) for view in vars(batch).values()))


def _with_images(view: View, images: Tensor) -> View:
    return View(images, view.depth, view.valid, view.intrinsics, view.pose)


def _varied(batch: PairBatch, closest: float, seed: int) -> PairBatch:
    """Both views of a pair mirrored or not and as close as each other, each in a light of its own."""
    device, count = batch.first.images.device, len(batch.first.images)
    generator = torch.Generator(device).manual_seed(seed)
    chance = torch.rand(2, count, device=device, generator=generator)
    turned = torch.where(chance[0] < 0.5, -1.0, 1.0)
    share = torch.exp(chance[1] * math.log(closest))
    light = torch.randn(2, NUMBERS, count, device=device, generator=generator)
    return PairBatch(*(_seen_otherwise(view, turned, share, own) for view, own in zip(vars(batch).values(), light, strict=True)))


def _seen_otherwise(view: View, turned: Tensor, share: Tensor, light: Tensor) -> View:
    """turned: -1 where the world is mirrored; share: of the picture's width that is left."""
    theta = torch.zeros(len(turned), 2, 3, device=turned.device)
    theta[:, 0, 0], theta[:, 1, 1] = turned * share, share
    grid = F.affine_grid(theta, list(view.images.shape), align_corners=False)
    images = F.grid_sample(view.images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    known = torch.stack([torch.where(view.valid, view.depth, 0.0), view.valid.float()], dim=1)
    depth, valid = F.grid_sample(known, grid, mode="nearest", padding_mode="border", align_corners=False).unbind(1)
    flip = torch.diag_embed(torch.stack([turned, *[torch.ones_like(turned)] * 3], dim=-1))
    return View(_relit(images, light), depth, valid > 0, _intrinsics(view, turned, share), flip @ view.pose @ flip)


def _intrinsics(view: View, turned: Tensor, share: Tensor) -> Tensor:
    fx, fy, cx, cy = view.intrinsics.unbind(1)
    height, width = view.depth.shape[1:]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    return torch.stack([fx / share, fy / share, middle_x + turned * (cx - middle_x) / share, middle_y + (cy - middle_y) / share], dim=1)


def _relit(images: Tensor, light: Tensor) -> Tensor:
    """Pictures -1..1 with other exposure, contrast and white balance."""
    stops, gamma, red, blue = (value[:, None, None] for value in light.clamp(-2.5, 2.5))
    gain = torch.exp2(STOPS * stops)
    colour = torch.stack([gain * (1 + COLOUR * red), gain, gain * (1 + COLOUR * blue)], dim=1)
    lit = (colour * (images + 1) / 2).clamp(0, 1) ** (GAMMA * gamma).exp()[:, None]
    return 2 * lit - 1
