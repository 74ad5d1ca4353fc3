"""The problems of `bench/alignment.py`: views of known truth, the pairs between them, and what is wrong with some of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "test"))
from support.pair_simulator import Pair, PairErrors, PairSimulator, Wrong

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.mapping.scene_graph import SceneGraph, directed
from dust3r_ros.simulation import SimulatedSequence, circle_sequence, corridor_sequence, ring_sequence, room_sequence

BYTES_A_PIXEL = 2 * 4 * 4  # of a prediction: two views, three coordinates and a confidence in float32


@dataclass(frozen=True)
class Problem:
    """One line of the table, before it is built. Pairs are directed."""

    name: str
    keyframes: int
    size: tuple[int, int]
    sequence: Callable[[], SimulatedSequence]
    graph: str = "swin-3"
    apart: int = 1  # frames of the sequence between two keyframes
    extra: Callable[[PairSimulator, Sequence[Pair]], list[Pair]] | None = None  # beyond the graph's, undirected
    wrong: float = 0.0  # share of the undirected pairs that are not of neighbours
    errors: PairErrors | None = None

    def build(self) -> BuiltProblem:
        views = PairSimulator.of(self.sequence(), self.errors, seed=5, apart=self.apart)
        pairs = SceneGraph.parse(self.graph).pairs(range(self.keyframes))
        pairs += self.extra(views, pairs) if self.extra else []
        views.wrong.update(wrong_ones(pairs, self.wrong))
        predictions = views.pairs(directed(pairs))
        right = [(p.i, p.j) not in views.wrong for p in predictions]
        return BuiltProblem(self, views.camera.fx, (views.camera.cx, views.camera.cy), np.stack(views.poses), predictions, right)

    def pairs(self) -> int:
        """How many directed ones, about: without `extra`."""
        return 2 * len(SceneGraph.parse(self.graph).pairs(range(self.keyframes)))

    def bytes(self) -> int:
        return self.pairs() * self.size[0] * self.size[1] * BYTES_A_PIXEL


@dataclass(frozen=True, eq=False)
class BuiltProblem:
    problem: Problem
    focal: float
    centre: tuple[float, float]
    poses: NDArray[np.float64]  # [N, 4, 4]
    predictions: list[PairPrediction] = field(repr=False)
    right: list[bool]  # of each prediction

    @property
    def centres(self) -> dict[int, tuple[float, float]]:
        return dict.fromkeys(range(self.problem.keyframes), self.centre)


def wrong_ones(pairs: Sequence[Pair], share: float) -> dict[Pair, Wrong]:
    """Both directions of so many pairs that are not of neighbours: half moved, half mistaken for another view."""
    apart = [pair for pair in pairs if abs(pair[0] - pair[1]) > 1]
    drawn = np.random.default_rng(11).permutation(len(apart))[: round(share * len(apart))]
    kinds: tuple[Wrong, Wrong] = ("moved", "mistaken")
    return {pair: kinds[n % 2] for n, k in enumerate(drawn) for pair in directed([apart[k]])}


def closing_edges(views: PairSimulator, _: Sequence[Pair], count: int = 3) -> list[Pair]:
    """The last keyframes with the first."""
    return [(k, len(views.poses) - 1 - k) for k in range(count)]


def retrieved_edges(views: PairSimulator, taken: Sequence[Pair], share: float) -> list[Pair]:
    """As retrieval would: the pairs not yet `taken` that see most of the same, `share` of all pairs there are."""
    count = len(views.poses)
    overlap = {(i, j): views.overlap(i, j) for i in range(count) for j in range(i + 1, count)}
    ranked = sorted(set(overlap) - set(taken), key=lambda pair: (-overlap[pair], pair))
    return ranked[: round(share * len(overlap))]


def _problems() -> list[Problem]:
    small = (128, 96)
    ring, around = partial(ring_sequence, 100, *small), partial(circle_sequence, 24, *small)
    # All pairs help alike, however little they share, unless the errors know it: then the complete graph would win by its mere size.
    study, errors = partial(retrieved_edges, share=0.04), PairErrors(apart=9.0)
    return [
        Problem("circle-8", 8, small, partial(circle_sequence, 8, *small)),
        Problem("circle-12", 12, (224, 160), partial(circle_sequence, 12, 224, 160)),
        Problem("room-40", 40, small, partial(room_sequence, 80, *small), apart=2),
        Problem("corridor-100", 100, small, partial(corridor_sequence, 100, *small)),
        Problem("ring-100", 100, small, ring, extra=closing_edges),
        Problem("ring-100-open", 100, small, ring),
        Problem("complete-24", 24, small, around, graph="complete", errors=errors),
        Problem("window3-24", 24, small, around, errors=errors),
        Problem("window3+4%-24", 24, small, around, extra=study, errors=errors),
        Problem(
            "wrong-pairs-20", 20, small, partial(room_sequence, 60, *small), apart=3, extra=partial(retrieved_edges, share=0.1), wrong=0.1
        ),
        Problem("corridor-500", 500, small, partial(corridor_sequence, 500, *small)),
        Problem("large-100", 100, (512, 384), partial(corridor_sequence, 100, 512, 384)),
    ]


PROBLEMS = {problem.name: problem for problem in _problems()}
