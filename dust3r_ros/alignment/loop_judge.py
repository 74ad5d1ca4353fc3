"""What speaks for and against a loop, given where the graph has the keyframes: that both directions agree, and that drift explains it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.link import Link, Side, make_link, merged
from dust3r_ros.alignment.problem import KNOWN, Array, choose_pixels, flat
from dust3r_ros.alignment.sim3 import Sim3
from dust3r_ros.alignment.similarity_table import SimilarityTable
from dust3r_ros.alignment.window_data import Pair
from dust3r_ros.estimators import PairPrediction

SAME_TURN, SAME_PLACE, SAME_SIZE = 0.15, 0.15, 0.2  # rad, share of the depth, log: between the two directions of a loop's pair
DRIFT_TURN, DRIFT_SIZE, DRIFT_PLACE = 0.02, 0.02, 0.15  # rad and log a keyframe, share of the way: more is no drift
LOOP_PIXELS = 600  # looked at in each view of a loop's pairs


@dataclass(frozen=True, eq=False)
class SettledView:
    """A keyframe's depth as the map has it, of any size: [h, w] along z in world units, 0 unknown; and the camera of these pixels."""

    depth: NDArray[np.float32]
    focal: float
    principal_point: tuple[float, float]


class LoopJudge:
    """Of one graph, whose keyframes' own frames these are: they are read here, and changed elsewhere."""

    def __init__(self, frames: SimilarityTable) -> None:
        self._frames = frames

    def links(self, predictions: Sequence[PairPrediction], views: Mapping[int, SettledView]) -> list[Link]:
        """Of pairs, in both directions: those whose directions agree and whose difference from the graph drift can explain.

        `views`: the keyframes as they are settled. Nothing is joined yet.
        """
        found: dict[Pair, list[Link]] = {}
        for p in predictions:
            sides = {}
            for n, points, confidence in ((p.i, p.points_i, p.confidence_i), (p.j, p.points_j, p.confidence_j)):
                sides[n] = _side(flat(points, 3), flat(confidence, 1)[:, 0], confidence.shape, views[n], self._frames[n].scale)
            pair = (min(p.i, p.j), max(p.i, p.j))
            link = make_link(*pair, sides[pair[0]], sides[pair[1]], loop=True)
            if link is not None:
                found.setdefault(pair, []).append(link)
        return [
            merged(*links[:2])
            for links in found.values()
            if len(links) > 1 and _agree(links[0], links[1]) and self._drifted_there(links[0])
        ]

    def within_drift(self, keyframe: int, reach: float) -> set[int]:
        """Earlier keyframes that drift since then allows to be within `reach` (world units) of where this one is."""
        order, way = self._way_to(keyframe)
        apart = np.linalg.norm(self._frames.at(order).translation - self._frames[keyframe].translation, axis=1)
        return set(order[apart <= DRIFT_PLACE * way + reach].tolist())

    def nearest(self, keyframe: int, count: int, among: Iterable[int]) -> list[int]:
        """Of other keyframes, those whose cameras stand nearest to this one's and look the same way, as the graph has them now."""
        here = self._frames[keyframe]
        others = np.fromiter(among, np.int64)
        others = others[(others != keyframe) & self._frames.known(others)]
        there = self._frames.at(others)
        facing = there.rotation[:, :, 2] @ here.rotation[:, 2] > 0.5
        apart = np.linalg.norm(there.translation[facing] - here.translation, axis=1)
        return [int(n) for n in others[facing][np.argsort(apart, kind="stable")[:count]]]

    def same_loop(self, one: Link, other: Link) -> bool:
        """Whether two loops, whose ends are near each other, put the later part of the graph at the same place."""
        ends = [self._frames[n] for n in (one.i, one.j, other.i, other.j)]
        frames = Sim3.stack([*ends, one.relative, other.relative])
        # Where the later part of the graph goes by each: the world's similarity that carries the later keyframe to where the loop has it.
        by_one = frames[0:1] @ frames[4:5] @ frames[1:2].inverse()
        by_other = frames[2:3] @ frames[5:6] @ frames[3:4].inverse()
        # As an increment at the later keyframe, in its own frame and units.
        off = (frames[1:2].inverse() @ by_one.inverse() @ by_other @ frames[1:2]).difference()[0]
        return bool(np.linalg.norm(off[:3]) < SAME_TURN and np.linalg.norm(off[3:6]) < SAME_PLACE * one.depth and abs(off[6]) < SAME_SIZE)

    def carried_by(self, link: Link, reach: float) -> set[int]:
        """Keyframes passed lately that go where `link` puts its later end, since drift from them on cannot explain how far that is.

        Lately: the way since is within `reach` (world units), or shorter than what the link corrects.
        """
        order, way = self._way_to(link.j)
        off = self._correction(link)
        lately = way <= max(reach, float(np.linalg.norm(off[3:6])) * self._frames[link.j].scale)
        return {int(n) for n, passed in zip(order[lately], way[lately], strict=True) if not self._is_drift(off, link, int(n), passed)}

    # ---- how -------------------------------------------------------------------------------------------------------------------------

    def _way_to(self, keyframe: int) -> tuple[NDArray[np.int64], Array]:
        """Earlier keyframes, and how far the camera went since (world units)."""
        order = self._frames.indices
        order = order[order <= keyframe]
        steps = np.linalg.norm(np.diff(self._frames.at(order).translation, axis=0), axis=1)
        return order[:-1], steps[::-1].cumsum()[::-1]

    def _correction(self, link: Link) -> Array:
        """[7] by what the link moves its later end from where the graph has it, in that keyframe's own frame and units."""
        frames = Sim3.stack([self._frames[link.i], self._frames[link.j], link.relative])
        return np.asarray((frames[2:].inverse() @ frames[:1].inverse() @ frames[1:2]).difference()[0])

    def _drifted_there(self, link: Link) -> bool:
        """Whether drift since the earlier keyframe can explain where the link puts the later one."""
        order, way = self._way_to(link.j)
        return self._is_drift(self._correction(link), link, link.i, float(way[np.searchsorted(order, link.i)]))

    def _is_drift(self, off: Array, link: Link, since: int, way: float) -> bool:
        """Whether a correction may be drift since an earlier keyframe, `way` ago (world units)."""
        order = self._frames.indices
        count = int(((order >= since) & (order <= link.j)).sum())
        return bool(
            np.linalg.norm(off[:3]) < SAME_TURN + DRIFT_TURN * count
            and np.linalg.norm(off[3:6]) < DRIFT_PLACE * way / self._frames[link.j].scale + SAME_PLACE * link.depth
            and abs(off[6]) < SAME_SIZE + DRIFT_SIZE * count
        )


def _agree(one: Link, other: Link) -> bool:
    """Whether both directions of a pair put the later keyframe at about the same place."""
    off = (Sim3.stack([one.relative]).inverse() @ Sim3.stack([other.relative])).difference()[0]
    return bool(np.linalg.norm(off[:3]) < SAME_TURN and np.linalg.norm(off[3:6]) < SAME_PLACE * one.depth and abs(off[6]) < SAME_SIZE)


def _side(points: NDArray[np.float32], confidence: NDArray[np.float32], shape: Sequence[int], view: SettledView, unit: float) -> Side:
    """One view of a pair beside the keyframe's settled depth, in the keyframe's own units."""
    height, width = shape
    index = choose_pixels(height, width, [confidence], LOOP_PIXELS)
    rows, columns = view.depth.shape
    row = np.clip(((index // width + 0.5) * rows / height).astype(int), 0, rows - 1)
    column = np.clip(((index % width + 0.5) * columns / width).astype(int), 0, columns - 1)
    # The settled pixel's own ray would be up to half of its size beside: the point is where the pair's pixel looks, at that depth.
    u, v = (index % width + 0.5) * columns / width - 0.5, (index // width + 0.5) * rows / height - 0.5
    depth = view.depth[row, column].astype(np.float64)
    rays = np.stack([(u - view.principal_point[0]) / view.focal, (v - view.principal_point[1]) / view.focal, np.ones_like(u)])
    seen = points[index].astype(np.float64)
    sure = confidence[index]
    known = (depth > 0) & (sure > KNOWN) & np.isfinite(seen).all(1)
    weight = np.where(known, np.log(np.maximum(sure, KNOWN)), 0.0)
    return Side(rays * depth / unit, np.where(known, seen.T, 0.0), weight)
