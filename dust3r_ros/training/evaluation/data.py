"""The data sets: held-out generated scenes, the simulated room, the motorcycle, and the red kitchen where it lies on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from dust3r_ros.demo.inputs import TrueView, motorcycle
from dust3r_ros.geometry import Camera
from dust3r_ros.simulation import room_sequence
from dust3r_ros.training.evaluation.kitchen import kitchen_frames, kitchen_pairs
from dust3r_ros.training.evaluation.truth import DataError, TruePair
from dust3r_ros.training.pairs import PairBatch, PairSource, View

ROOM_FRAMES = 100  # of the walk, 4 cm apart
ROOM_GAPS = (3, 24)  # frames between the two of a pair, both inclusive: 12 cm to 1 m, with a turn that keeps the middle in view
HELD_OUT_BATCH = 8  # pairs a batch: it is part of which pairs these are
MIN_SIZE = 64


@dataclass(frozen=True)
class DataSet:
    """Pairs that are made when asked for: the same ones each time."""

    name: str
    title: str  # what it is, in a few words
    pairs: Callable[[], Iterator[TruePair]]


def held_out_source(seed: int, size: int) -> PairSource:
    """The generated scenes of the split that training never sees; on the CPU, whose numbers are the same wherever they are drawn."""
    from dust3r_ros.training.scenes import GeneratedPairs, PairsConfig

    width, height = _four_by_three(size)
    return GeneratedPairs(PairsConfig(width=width, height=height, pairs=HELD_OUT_BATCH), seed, "cpu", split="held_out")


def held_out(source: PairSource, count: int) -> Iterator[TruePair]:
    """The first `count` pairs of a source."""
    step = 0
    while count > 0:
        batch = source.batch(step)
        found = pairs_of(batch)[:count]
        if not found:
            raise DataError(f"held-out scenes: batch {step} holds no pair: give a source with one pair a batch or more")
        yield from found
        count, step = count - len(found), step + 1


def pairs_of(batch: PairBatch) -> list[TruePair]:
    """Each pair of a batch as pictures, cameras and poses."""
    firsts, seconds = (_true_views(view.to("cpu"), stamp) for stamp, view in enumerate((batch.first, batch.second)))
    return [TruePair(first, second) for first, second in zip(firsts, seconds, strict=True)]


def _true_views(view: View, stamp: int) -> list[TrueView]:
    height, width = view.depth.shape[1:]
    pictures = ((view.images.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    depths = view.depth.where(view.valid, 0.0).float().numpy()
    return [
        TrueView(stamp, np.ascontiguousarray(picture), Camera(width, height, *_four(numbers)), pose.double().numpy(), depth)
        for picture, depth, numbers, pose in zip(pictures, depths, view.intrinsics, view.pose, strict=True)
    ]


def _four(intrinsics: Tensor) -> tuple[float, float, float, float]:
    fx, fy, cx, cy = intrinsics.tolist()
    return fx, fy, cx, cy


def room_pairs(count: int, seed: int = 0, size: int = 320) -> Iterator[TruePair]:
    """Pairs of the demo's walk through the simulated room, `size` pixels wide; `seed` draws them and the room's paint."""
    views = room_sequence(ROOM_FRAMES, *_four_by_three(size), seed)
    rng = np.random.default_rng([seed, 1])
    for _ in range(count):
        gap = int(rng.integers(ROOM_GAPS[0], ROOM_GAPS[1] + 1))
        start = int(rng.integers(ROOM_FRAMES - gap))
        order = (start, start + gap) if rng.random() < 0.5 else (start + gap, start)
        first, second = (views[k] for k in order)
        yield TruePair(*(TrueView(v.stamp, v.image, v.camera, v.pose, v.depth) for v in (first, second)))


def motorcycle_pair() -> Iterator[TruePair]:
    """Middlebury's motorcycle. Raises DemoError without scikit-image."""
    left, right = motorcycle()
    yield TruePair(left, right)


def _four_by_three(size: int) -> tuple[int, int]:
    return size, size * 3 // 4


def chosen_sets(
    names: Sequence[str], count: int, seed: int, size: int, kitchen: Path | None, source: Callable[[], PairSource]
) -> list[DataSet]:
    """The data sets called `names`, in their order. `source` makes the held-out scenes when they are asked for. Raises DataError."""
    if count < 1 or size < MIN_SIZE:
        raise DataError(f"evaluation on {count} pairs of {size} pixels: give 1 pair or more, of {MIN_SIZE} pixels or more")
    known = {
        "held_out": DataSet("held_out", "generated scenes that no model of ours was trained on", lambda: held_out(source(), count)),
        "room": DataSet("room", "a furnished room, simulated by other code", lambda: room_pairs(count, seed, size)),
        "motorcycle": DataSet("motorcycle", "two photographs (Middlebury 2014)", motorcycle_pair),
    }
    if kitchen is not None:
        kitchen_frames(kitchen)  # what is missing is said before anything runs
        known["kitchen"] = DataSet("kitchen", "a hand-held RGB-D camera (7-Scenes)", lambda: kitchen_pairs(kitchen, count, seed))
    unknown = [name for name in names if name not in known]
    if unknown:
        more = "" if kitchen is not None else ", and kitchen with --kitchen DIR"
        raise DataError(f"no data set is called '{unknown[0]}': choose of {', '.join(known)}{more}")
    return [known[name] for name in names]
