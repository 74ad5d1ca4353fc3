"""Alignment online: keyframes one at a time, the whole graph now and then, in memory that does not grow with what was seen.

The window is solved on pixels whenever a keyframe comes. A keyframe that leaves it keeps its similarity to the world and its links to its
neighbours: 35 numbers each. The whole graph is solved on those, on another thread if wanted, and comes back as a correction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from dust3r_ros.alignment.coarse_graph import solve_coarsely
from dust3r_ros.alignment.lengths import Length
from dust3r_ros.alignment.link import Link, Side, make_link, merged
from dust3r_ros.alignment.local_window import AlignedView, LocalWindow
from dust3r_ros.alignment.loop_judge import LoopJudge, SettledView
from dust3r_ros.alignment.mount import Mount
from dust3r_ros.alignment.pair_motions import reversed_motion
from dust3r_ros.alignment.pose_graph import Graph, solve_pose_graph
from dust3r_ros.alignment.problem import Array
from dust3r_ros.alignment.sim3 import Sim3
from dust3r_ros.alignment.similarity_table import SimilarityTable
from dust3r_ros.alignment.window_data import Pair
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity


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
        self.judge = LoopJudge(self._frames)
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
        """The keyframe that was added last goes as if it had never been; nothing happens if `add` found no place for it."""
        if keyframe not in self._window.nodes:
            return
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
        """Pairs, in both directions, between keyframes that are far apart in time; what was joined: those that the judge believes.

        It counts from the next alignment of the whole graph on.
        """
        return self.join(self.judge.links(predictions, views))

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

    def _window_links(self, keyframe: int | None = None) -> dict[Pair, Link]:
        """Of all pairs of the window, or of one keyframe's."""
        window, found = self._window, dict[Pair, Link]()
        points: dict[int, Array] = {}
        motions = window.told_motions()
        for edge in window.edges.values():
            ends = (edge.prediction.i, edge.prediction.j)
            if any(window.nodes[n].depth is None for n in ends) or keyframe not in (None, *ends):
                continue
            for n in ends:
                if n not in points:
                    points[n] = window.own_points(n) / self._frames[n].scale
            pair = (min(ends), max(ends))
            first, second = (Side(points[n], edge.points[n], edge.weight[n]) for n in pair)
            said = motions.get(ends)
            link = make_link(*pair, first, second, motion=said if said is None or ends == pair else reversed_motion(said))
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
