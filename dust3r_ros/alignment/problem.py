"""The alignment problem on a few well spread, confident pixels of each image.

N images, E pairs, M = 2 E sides (a side: one image as one pair has it), S pixels an image. Sides lie image by image. Pixels are in an order
in which any first few are spread over the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dust3r_ros.alignment.compiled_samples import add_confidences, pick
from dust3r_ros.alignment.workers import each
from dust3r_ros.estimators import PairPrediction

Array = NDArray[np.float64]

KNOWN = 1.0 + 1e-6  # a confidence of exactly 1 says that nothing is known
CANDIDATES = 4  # pixels looked at for each one chosen: the most confident stays
GOLDEN = (0.7548776662466927, 0.5698402909980532)  # the R2 sequence (Roberts, 2018): evenly spread, whatever the number


@dataclass(eq=False)
class Problem:
    """What does not change while it is solved."""

    images: tuple[int, ...]
    start: NDArray[np.int64]  # [N + 1] image n has the sides start[n] to start[n + 1]
    pair: NDArray[np.int64]  # [M] which prediction each side belongs to
    points: Array  # [M, 3, S] in the pair's own frame
    weight: Array  # [M, S] log confidence over the number of pixels and pairs; 0 where nothing is known
    pixels: Array  # [N, 2, S] (u - cx, v - cy)
    pairs: int
    device: torch.device | None = None  # where its sums are worked out; None: on this CPU, by compiled loops

    @property
    def sides_of_pair(self) -> NDArray[np.int64]:
        """[E, 2]: the sides of each pair, by image order."""
        return np.argsort(self.pair, kind="stable").reshape(-1, 2)

    @property
    def image(self) -> NDArray[np.int64]:
        """[M]: position of each side's image."""
        return np.repeat(np.arange(len(self.images)), np.diff(self.start))

    def first(self, count: int) -> Problem:
        """The same on the first `count` pixels of each image."""
        size = self.pixels.shape[2]
        if count >= size:
            return self
        cut = (np.ascontiguousarray(values[..., :count]) for values in (self.points, self.weight * (size / count), self.pixels))
        points, weight, pixels = cut
        return replace(self, points=points, weight=weight, pixels=pixels)

    def among(self, images: Sequence[int], pairs: Sequence[int]) -> Problem:
        """Of some images and pairs alone (`pairs`: positions), all of whose images are among them."""
        if len(images) == len(self.images) and len(pairs) == self.pairs:
            return self
        own = [self.images.index(image) for image in images]
        number = np.full(self.pairs, -1)
        number[list(pairs)] = np.arange(len(pairs))
        kept = [m for n in own for m in range(self.start[n], self.start[n + 1]) if number[self.pair[m]] >= 0]
        counts = [int((number[self.pair[self.start[n] : self.start[n + 1]]] >= 0).sum()) for n in own]
        return Problem(
            images=tuple(images),
            start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            pair=number[self.pair[kept]].astype(np.int64),
            points=self.points[kept],
            weight=self.weight[kept] * (self.pairs / len(pairs)),
            pixels=self.pixels[own],
            pairs=len(pairs),
            device=self.device,
        )


@dataclass(eq=False)
class State:
    """What is solved for."""

    rotation: Array  # [N, 3, 3] camera to world
    position: Array  # [N, 3]
    focal: Array  # [N] pixels
    pair_rotation: Array  # [E, 3, 3]
    pair_translation: Array  # [E, 3]
    pair_scale: Array  # [E]
    depth: Array  # [N, S] along z

    @property
    def linear(self) -> Array:
        """[E, 3, 3]: scale times rotation of each pair."""
        return self.pair_scale[:, None, None] * self.pair_rotation

    @property
    def poses(self) -> Array:
        """[N, 4, 4], orthonormal to the last digit."""
        poses = np.tile(np.eye(4), (len(self.position), 1, 1))
        u, _, vt = np.linalg.svd(self.rotation)
        poses[:, :3, :3] = u @ vt
        poses[:, :3, 3] = self.position
        return poses


def spread(count: int) -> Array:
    """[count, 2] in [0, 1): every beginning of the list is evenly spread."""
    return np.asarray((0.5 + np.arange(count)[:, None] * np.array(GOLDEN)) % 1.0)


def build_problem(
    predictions: Sequence[PairPrediction],
    images: Sequence[int],
    principal_points: Mapping[int, tuple[float, float]],
    count: int,
) -> Problem:
    """The problem of `predictions`, all of whose images are among `images`, on `count` pixels of each."""
    at = {image: n for n, image in enumerate(images)}
    sides: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in images]
    for e, p in enumerate(predictions):
        sides[at[p.i]].append((e, p.points_i, p.confidence_i))
        sides[at[p.j]].append((e, p.points_j, p.confidence_j))
    start = np.concatenate([[0], np.cumsum([len(seen) for seen in sides])]).astype(np.int64)
    total = int(start[-1])
    points, weight = np.empty((total, 3, count)), np.empty((total, count))
    pixels, pair = np.empty((len(images), 2, count)), np.empty(total, np.int64)
    share, device = 1.0 / (count * len(predictions)), device_of(predictions)

    def fill(n: int) -> None:
        height, width = sides[n][0][2].shape
        around = candidates(height, width, count)
        # From a device only what is looked at is copied, and lies here in that order.
        some = None if device is None else torch.as_tensor(around.ravel(), device=device)
        place = around if device is None else np.arange(around.size).reshape(around.shape)
        seen = [(e, flat(own, 3, some), flat(confidence, 1, some)[:, 0]) for e, own, confidence in sides[n]]
        best = np.arange(count), most_confident(place, [confidence for _, _, confidence in seen])
        index, chosen = around[best], place[best]
        centre = principal_points.get(images[n], (width / 2, height / 2))
        pixels[n] = index % width - centre[0], index // width - centre[1]
        for m, (e, own, confidence) in enumerate(seen, start=start[n]):
            pair[m] = e
            pick(own, confidence, chosen, KNOWN, share, points[m], weight[m])

    if device is None:
        each(fill, len(images))
    else:  # other threads would not wait for this one's stream
        for n in range(len(images)):
            fill(n)
    return Problem(tuple(images), start, pair, points, weight, pixels, len(predictions), device)


def device_of(predictions: Sequence[PairPrediction]) -> torch.device | None:
    """The one GPU that all predictions lie on, None if there is none: then the CPU's compiled loops do the work."""
    devices = {values.device for p in predictions for values in (p.points_i, p.points_j, p.confidence_i, p.confidence_j)}
    found = devices.pop() if len(devices) == 1 else None
    return found if found is not None and found.type == "cuda" else None


def choose_pixels(height: int, width: int, confidences: Sequence[NDArray[np.float32]], count: int) -> NDArray[np.int64]:
    """[count] pixels (row times width plus column): evenly spread, each the most confident, over all pairs, of a few beside one another."""
    around = candidates(height, width, count)
    return np.ascontiguousarray(around[np.arange(count), most_confident(around, confidences)])


def candidates(height: int, width: int, count: int) -> NDArray[np.int64]:
    """[count, CANDIDATES] pixels (row times width plus column): rows evenly spread, in each a few beside one another."""
    around = _around(count)
    row = np.minimum((around[..., 1] * height).astype(np.int64), height - 1)
    column = np.minimum((around[..., 0] * width).astype(np.int64), width - 1)
    return np.asarray(row * width + column)


def most_confident(place: NDArray[np.int64], confidences: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
    """[count] the column of place [count, CANDIDATES] where the confidences, over all pairs, are the largest."""
    total = np.zeros(place.shape, np.float32)
    for confidence in confidences:
        add_confidences(confidence, place, total)
    return total.argmax(1)


@lru_cache(maxsize=4)
def _around(count: int) -> Array:
    """[count, CANDIDATES, 2] in [0, 1)."""
    return np.asarray((spread(count)[:, None] + (spread(CANDIDATES) - 0.5) / count**0.5) % 1.0)


def flat(values: Tensor, channels: int, some: Tensor | None = None) -> NDArray[np.float32]:
    """[P, channels] on the CPU, of all pixels or of `some` alone."""
    rows = values.reshape(-1, channels)
    return np.asarray((rows if some is None else rows[some]).float().contiguous().cpu().numpy())
