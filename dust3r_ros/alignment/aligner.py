"""Alignment online: keyframes one at a time, the whole graph now and then, in memory that does not grow with what was seen.

The window is solved on pixels whenever a keyframe comes. A keyframe that leaves it keeps its similarity to the world and its links to its
neighbours: 35 numbers each. The whole graph is solved on those, on another thread if wanted, and comes back as a correction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.coarse_graph import solve_coarsely
from dust3r_ros.alignment.lengths import Length
from dust3r_ros.alignment.link import Link, Side, make_link, merged
from dust3r_ros.alignment.local_window import AlignedView, LocalWindow
from dust3r_ros.alignment.mount import Mount
from dust3r_ros.alignment.pose_graph import Graph, solve_pose_graph
from dust3r_ros.alignment.problem import KNOWN, Array, choose_pixels, flat
from dust3r_ros.alignment.sim3 import Sim3
from dust3r_ros.alignment.similarity_table import SimilarityTable
from dust3r_ros.alignment.window_data import Pair
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity

SAME_TURN, SAME_PLACE, SAME_SIZE = 0.15, 0.15, 0.2  # rad, share of the depth, log: between the two directions of a loop's pair
DRIFT_TURN, DRIFT_SIZE, DRIFT_PLACE = 0.02, 0.02, 0.15  # rad and log a keyframe, share of the way: more is no drift
LOOP_PIXELS = 600  # looked at in each view of a loop's pairs


@dataclass(frozen=True, eq=False)
class SettledView:
    """A keyframe's depth as the map has it, of any size: [h, w] along z in world units, 0 unknown; and the camera of these pixels."""

    depth: NDArray[np.float32]
    focal: float
    principal_point: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Correction:
    """What the alignment of the whole graph changed: every keyframe with its depths moves by a similarity of its own."""

    moves: SimilarityTable  # world to world, by keyframe
    rejected: tuple[Pair, ...]  # loops that contradict the rest and are forgotten


class Aligner:
    """Keyframes by index. Not thread-safe; the whole graph's alignment alone runs on a thread of its own."""

    def __init__(self) -> None:
        self._window = LocalWindow()
        self._frames = SimilarityTable()  # each keyframe's own frame and depth units to the world's
        self._links: dict[Pair, Link] = {}  # of pairs that have left the window, the earlier keyframe first
        self._loops: dict[Pair, Link] = {}
        self._running: tuple[Future[Graph], SimilarityTable] | None = None
        self._grown = 1.0  # by how much the world has grown since the other thread began
        self._thread = ThreadPoolExecutor(1, "pose_graph")
        self.lengths: Sequence[Length] = ()  # that were measured between keyframes; they count in the whole graph

    # ---- one keyframe ------------------------------------------------------------------------------------------------------------------

    def add(
        self,
        keyframe: int,
        predictions: Sequence[PairPrediction],
        focal: float | None = None,
        principal_point: tuple[float, float] | None = None,
        mount: Mount | None = None,
    ) -> dict[int, AlignedView] | None:
        """A new keyframe and its pairs with those of the window: all keyframes of the window as they lie now.

        Depths come with the new one and those whose earlier pairs were revised. Without pairs the keyframe waits (empty). None, and nothing
        has changed, if no place is found for it. focal and principal_point in pixels; a focal length that is not given is the same for all
        and is found. `mount`: its camera is fixed to that of another keyframe of the window.
        """
        return self._told(self._window.add(keyframe, predictions, focal, principal_point, mount))

    def again(self, predictions: Sequence[PairPrediction], there: Mapping[int, AlignedView]) -> dict[int, AlignedView] | None:
        """The window's pairs anew, solved from nothing and laid onto its keyframes as they are `there`; None: nothing has changed."""
        return self._told(self._window.again(predictions, there))

    def discard(self, keyframe: int) -> None:
        """The keyframe that was added last goes as if it had never been."""
        self._window.take_back()
        placed = self._window.placed
        for n in {keyframe, *self._window.nodes} - {*placed}:
            self._frames.pop(n, None)
        self._follow(placed)

    def retire(self, keyframe: int) -> AlignedView | None:
        """A keyframe leaves the window: its pairs become links. How it lies, its depths by all its pairs; None if it never had a place."""
        view = self._window.view(keyframe)
        self._links.update(self._window_links(keyframe))
        self._window.remove(keyframe)
        return view

    def reopen(self, keyframe: int, view: AlignedView, focal: float | None, principal_point: tuple[float, float] | None) -> None:
        """A keyframe that has left the window comes back as its newest, held where it is (`view`: with depth and confidence)."""
        self._window.put_back(keyframe, view, focal, principal_point)

    def know(self, frames: Mapping[int, Similarity], links: Sequence[Link]) -> None:
        """Keyframes of a saved map, and what holds them together."""
        self._frames.update(frames)
        self._links.update({(link.i, link.j): link for link in links if not link.loop})
        self._loops.update({(link.i, link.j): link for link in links if link.loop})

    def rescale(self, frame: Similarity) -> None:
        """The whole world moved, as when the first map gets its scale."""
        self._window.move(dict.fromkeys(self._window.placed, frame))
        self._move_all(frame)
        for n in self._window.placed:
            self._frames[n] = self._window.pose(n)

    def grow(self, factor: float) -> Correction:
        """The whole world becomes larger about its origin, as when its scale is found; an alignment that is under way follows."""
        world = Similarity(factor, np.eye(3), np.zeros(3))
        moves = self._move_all(world)
        self._window.move(dict.fromkeys(self._window.placed, world))
        self._grown *= factor
        return Correction(moves, ())

    # ---- the whole graph -----------------------------------------------------------------------------------------------------------------

    def close_loop(self, predictions: Sequence[PairPrediction], views: Mapping[int, SettledView]) -> list[Pair]:
        """Pairs, in both directions, between keyframes that are far apart in time; what was joined: those that `loop_links` believes.

        It counts from the next alignment of the whole graph on.
        """
        return self.join(self.loop_links(predictions, views))

    def loop_links(self, predictions: Sequence[PairPrediction], views: Mapping[int, SettledView]) -> list[Link]:
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

    def join(self, loops: Sequence[Link]) -> list[Pair]:
        """These loops are believed; they count, robustly, from the next alignment of the whole graph on."""
        self._loops.update({(link.i, link.j): link for link in loops})
        return [(link.i, link.j) for link in loops]

    @property
    def positions(self) -> dict[int, Array]:
        """[3] of every keyframe that has a place, world units."""
        order = self._frames.indices
        return dict(zip(order.tolist(), self._frames.at(order).translation, strict=True))

    @property
    def frames(self) -> SimilarityTable:
        """Of every keyframe that has a place: its own frame and depth units to the world's."""
        return self._frames.copy()

    @property
    def links(self) -> list[Link]:
        """All that holds the keyframes together, loops last."""
        return [*{**self._links, **self._window_links()}.values(), *self._loops.values()]

    def align(self, newest: int | None = None) -> Correction:
        """The whole graph, now; or `newest` of it, the rest standing."""
        self._running = None
        return self._apply(_solved(self._frames, self.links, newest, self.lengths), self._frames.copy())

    def start(self, newest: int | None = None) -> bool:
        """The whole graph on the other thread, or `newest` of it; False if one is under way."""
        if self._running is not None:
            return False
        frames, self._grown = self._frames.copy(), 1.0
        self._running = self._thread.submit(_solved, frames, self.links, newest, tuple(self.lengths)), frames
        return True

    @property
    def is_ready(self) -> bool:
        """Whether the other thread has found something."""
        return self._running is not None and self._running[0].done()

    def finished(self) -> Correction | None:
        """What the other thread found, if it is done."""
        if self._running is None or not self._running[0].done():
            return None
        (future, frames), self._running = self._running, None
        return self._apply(future.result(), frames, self._grown)

    # ---- how -------------------------------------------------------------------------------------------------------------------------

    def _told(self, views: dict[int, AlignedView] | None) -> dict[int, AlignedView] | None:
        self._follow(views or {})
        return views

    def _follow(self, keyframes: Iterable[int]) -> None:
        """A keyframe's frame follows the window's pose; its units stay."""
        for n in keyframes:
            pose = self._window.pose(n)
            known = self._frames.get(n)
            self._frames[n] = pose if known is None else Similarity(known.scale, pose.rotation, pose.translation)

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

    def _window_links(self, keyframe: int | None = None) -> dict[Pair, Link]:
        """Of all pairs of the window, or of one keyframe's."""
        window, found = self._window, dict[Pair, Link]()
        points: dict[int, Array] = {}
        for edge in window.edges.values():
            ends = (edge.prediction.i, edge.prediction.j)
            if any(window.nodes[n].depth is None for n in ends) or keyframe not in (None, *ends):
                continue
            for n in ends:
                if n not in points:
                    points[n] = window.own_points(n) / self._frames[n].scale
            pair = (min(ends), max(ends))
            first, second = (Side(points[n], edge.points[n], edge.weight[n]) for n in pair)
            link = make_link(pair[0], pair[1], first, second)
            if link is not None:
                found[pair] = link if pair not in found else merged(found[pair], link)
        for n, mount in window.mounts.items():
            if keyframe in (None, n, mount.on) and n in self._frames and mount.on in self._frames and mount.on in window.nodes:
                link, pair = mount.link(n, self._frames), (mount.on, n)
                found[pair] = link if pair not in found else merged(found[pair], link)
        return found

    def _move_all(self, world: Similarity) -> SimilarityTable:
        """All keyframes by the same; the moves."""
        order, moves = self._frames.indices, SimilarityTable()
        everywhere = Sim3.stack([world])[np.zeros(len(order), np.int64)]
        self._frames.put(order, everywhere @ self._frames.at(order))
        moves.put(order, everywhere)
        return moves

    def _apply(self, graph: Graph, before: SimilarityTable, grown: float = 1.0) -> Correction:
        """What came since moves with the newest keyframe that was aligned. `grown`: by how much the world is larger than `before`."""
        for pair in graph.rejected:
            self._loops.pop(pair, None)
        known = graph.solved[self._frames.known(graph.solved)]
        if not len(known):
            return Correction(SimilarityTable(), graph.rejected)
        # The window has moved since then too: what is applied is what the graph changed, not where it had been.
        moves = graph.nodes.at(known) @ before.at(known).inverse()
        found = SimilarityTable()
        found.put(known, Sim3(moves.scale, moves.rotation, grown * moves.translation))
        order = self._frames.indices
        since = order[~before.known(order)]
        found.put(since, found.at(np.full(len(since), known[-1])))
        order = found.indices
        self._frames.put(order, found.at(order) @ self._frames.at(order))
        self._window.move({n: found[n] for n in self._window.placed if n in found})
        return Correction(found, graph.rejected)


def _solved(frames: SimilarityTable, links: Sequence[Link], newest: int | None, lengths: Sequence[Length]) -> Graph:
    return solve_coarsely(frames, links, lengths) if newest is None else solve_pose_graph(frames, links, lengths, newest)


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
