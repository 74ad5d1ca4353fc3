"""The map that grows keyframe by keyframe: the window that is still solved (`solved_window`), what has left it, and the points of both."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment import Aligner, Correction, Length
from dust3r_ros.estimators import Estimator, PairPrediction, Tokens
from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.config import MapperConfig
from dust3r_ros.mapping.keyframes.alignment_schedule import AlignmentSchedule
from dust3r_ros.mapping.keyframes.keyframe_store import KeyframeStore
from dust3r_ros.mapping.keyframes.loop_closing import LoopCloser
from dust3r_ros.mapping.keyframes.map_parts import MapParts
from dust3r_ros.mapping.keyframes.place_search import PlaceSearch
from dust3r_ros.mapping.keyframes.rig_pairs import Placing
from dust3r_ros.mapping.keyframes.solved_window import SolvedWindow
from dust3r_ros.mapping.keyframes.window import Entry, KeyframeWindow
from dust3r_ros.mapping.places.loops import LoopFinder
from dust3r_ros.mapping.places.relocalisation import Relocalisation
from dust3r_ros.mapping.points.map_points import MapPoints
from dust3r_ros.mapping.points.map_tiles import MapVersion, TileChanges
from dust3r_ros.mapping.scene_graph import Pair, SceneGraph, directed
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.storage.disk_shelf import ScratchFolder
from dust3r_ros.mapping.storage.index_table import IndexTable
from dust3r_ros.mapping.types import Keyframe, MapSnapshot, PointCloud, Standpoint

log = logging.getLogger(__name__)

IN_MEMORY_AT_REST = 32  # keyframes of a map that nothing is added to


@dataclass(frozen=True, eq=False)
class Growth:
    """What a new keyframe brought."""

    index: int
    pairs: tuple[Pair, ...]
    revised: tuple[Keyframe, ...]  # the new keyframe and those of the window that it corrected
    loops: tuple[Pair, ...] = ()  # old keyframes that it was joined to
    predictions: tuple[PairPrediction, ...] = ()  # of its pairs


class KeyframeMap:
    """Keyframes, their graph and their points. The map exists from the second keyframe on: one image has no depth."""

    def __init__(self, config: MapperConfig, estimator: Estimator, background: bool = False) -> None:
        """`background`: the whole graph is aligned on another thread and comes in when it is done; else at once, the same every time."""
        self.cameras = 1  # that share the window: it holds so many times its size
        self._estimator, self._background = estimator, background
        self._config = config
        self._graph = SceneGraph.parse(config.window.scene_graph)
        self._window = KeyframeWindow(estimator)
        self._aligner = Aligner()
        folder, near = ScratchFolder(config.map.folder), config.map.keyframes_in_memory
        self._finder = LoopFinder(near, folder)
        self._store = KeyframeStore(config.map.max_keyframes, near, folder)
        self._loops = LoopCloser(estimator, self._window, self._aligner, self._finder, self._store)
        self._points = MapPoints(config.map)
        self._parts = MapParts(self._store, self._finder, self._aligner, self._points)
        self._solved = SolvedWindow(self._parts, self._window)
        self._search = PlaceSearch(self._parts, self._window, estimator)
        self._schedule = AlignmentSchedule()
        self._ratios: IndexTable[float] = IndexTable()  # how much larger keyframes became since somebody asked

    @property
    def exists(self) -> bool:
        return bool(self._store.latest)

    @property
    def poses(self) -> Mapping[int, NDArray[np.float64]]:
        """Camera to world (4x4) of every keyframe there ever was, by index."""
        return self._store.poses

    @property
    def units(self) -> Mapping[int, float]:
        """How many map units a keyframe's own unit has become, where corrections changed it."""
        return self._store.units

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        return self._store.all()

    @property
    def standpoints(self) -> Mapping[int, Standpoint]:
        """Of all keyframes that are remembered, by index: what costs no look at the disk."""
        return self._store.standpoints

    @property
    def edges(self) -> tuple[Pair, ...]:
        return tuple(self._parts.edges)

    def keyframe(self, index: int) -> Keyframe | None:
        return self._store.latest.get(index)

    @property
    def newest(self) -> int:
        """The highest index that a keyframe has, or had; -1: there was none yet."""
        return self._store.peek_index() - 1

    @property
    def graph(self) -> SceneGraph:
        return self._graph

    @property
    def window(self) -> Mapping[int, Entry]:
        """The keyframes that are still solved, oldest first; the newest of them may not have a place yet."""
        return {index: self._window[index] for index in self._window.indices}

    def configure(self, config: MapperConfig) -> None:
        """Go on with new settings; a new voxel size re-bins the points."""
        if config.map != self._config.map:
            self._points.configure(config.map)
            self._store.max_pictures = config.map.max_keyframes
            self._parts.keep_in_memory(config.map.keyframes_in_memory)
        self._config = config
        self._graph = SceneGraph.parse(config.window.scene_graph)

    def empty(self) -> KeyframeMap:
        """A new one like this."""
        return KeyframeMap(self._config, self._estimator, self._background)

    def skip_to(self, index: int) -> None:
        """The next keyframe gets this index, or a later one."""
        self._store.skip_to(index)

    def stand_for(self, old: KeyframeMap, sizes: Mapping[int, float]) -> None:
        """Take the place of a map of the same keyframes, which are `sizes` times as large here; the whole becomes as large as it was."""
        size = float(np.median(list(sizes.values())))
        self.rescale(1.0 / size)
        self._ratios = IndexTable()
        self._ratios.update({index: own / size for index, own in sizes.items()})
        self._store.count_units({index: old.units.get(index, 1.0) * ratio for index, ratio in self._ratios.items()})

    def begin(self, stamp: int, tokens: Tokens, name: str = "") -> int:
        """The first keyframe waits in the window for a second one; its index. `name`: of its camera, where there are several."""
        index = self._store.next_index()
        self._solved.enter(index, Entry(stamp, tokens, name))
        return index

    def grow(self, stamp: int, tokens: Tokens, stopwatch: Stopwatch, placing: Placing | None = None) -> Growth | None:
        """Estimate the new keyframe's pairs and place it; None, and the map has not grown, if no depth or place is found for it.

        `placing`: how a camera of a rig comes in. One that is mounted and has no pair yet waits in the window, and nothing is revised.
        What the estimator raises goes on to the caller, and the map has not grown either.
        """
        self._points.window_changed()
        index, placing = self._store.next_index(), placing or Placing()
        pairs = tuple(self._graph.new_pairs(self._window.indices, index, both_directions=True))
        pairs = pairs if placing.partners is None else tuple(directed([(partner, index) for partner in placing.partners]))
        entry = Entry(stamp, tokens, placing.name)
        self._window.add(index, entry)
        revised: tuple[Keyframe, ...] = ()
        waits = False
        try:
            with stopwatch.time("estimate"):
                predictions = placing.believed(self._window.estimate(pairs))
            with stopwatch.time("align"):
                views = self._aligner.add(index, predictions, entry.focal, entry.principal_point, placing.mount)
                waits = placing.mount is not None and not predictions
                revised = () if waits else self._solved.accept(views, index)
        finally:
            if not revised and not waits:
                self._window.remove(index)
                self._aligner.discard(index)
        if waits:
            return Growth(index, (), ())
        if not revised:
            return None
        pairs = tuple(pair for pair in pairs if not placing.doubtful or pair in {(p.i, p.j) for p in predictions})
        self._parts.edges.extend(pairs)
        loops = self._close_loops(index, stopwatch)
        with stopwatch.time("fuse"):
            self._solved.slide(self._config.window.size * self.cameras)
        with stopwatch.time("align"):
            self._schedule.keyframe(bool(loops), self._config.alignment.every, len(self.poses))
            self._align_graph()
        return Growth(index, pairs, tuple(self._as_it_is(keyframe) for keyframe in revised), loops, tuple(predictions))

    def refine(self, index: int, depth: NDArray[np.float32], confidence: NDArray[np.float32]) -> None:
        """A pair with a frame that is no keyframe tells of a keyframe of the window too: [h, w] in map units, on its scale, 0 unknown."""
        self._solved.refine(index, depth, confidence)
        self._points.window_changed()

    def align(self) -> Sequence[Keyframe]:
        """Estimate and solve the window once more, then the whole graph; the keyframes (none while there is no map)."""
        if not self.exists:
            return ()
        self._points.window_changed()
        # A rig's cameras need not see the same: its window does not hang together by pairs alone.
        predictions = [] if self._is_rigs() else self._window.estimate_all(self._graph)
        if predictions:
            self._solved.accept(self._aligner.again(predictions, self._solved.views), self._window.indices[-1])
        self._correct(self._aligner.align())
        return self._store.all()

    def find(self, query: Tokens, moved_little: bool = False) -> Relocalisation:
        """Where a picture was taken, among all keyframes that are remembered. The map does not change.

        `moved_little`: the camera was at the newest keyframes a moment ago.
        """
        return self._search.find(query, moved_little)

    def likeness(self, query: Tokens) -> float:
        """How alike, -1..1, the picture is to the keyframe that looks most like it; costs no estimate."""
        return self._search.likeness(query)

    def go_on_from(self, found: Relocalisation) -> int:
        """The keyframe that was found, and those that agree with it, are what comes next is paired with; its index."""
        self._points.window_changed()
        self._parts.keep_in_memory(self._config.map.keyframes_in_memory)
        best = found.where.keyframes[0]
        partners = {i for pair in self._graph.new_pairs(self._window.indices, self._store.peek_index()) for i in pair}
        if best not in partners:
            agreeing = [self._store.latest[index] for index in found.where.keyframes]
            self._solved.close()
            for keyframe in reversed(agreeing):
                self._solved.reopen(keyframe, found.views[keyframe.index])
        return best

    def take_over(self, piece: KeyframeMap, place: Similarity, anchor: int, nearest: int) -> dict[int, int]:
        """All of a map piece becomes part of this map; the indices here of its keyframes.

        `place`: the piece's world to this one's. The two hang together by keyframe `anchor` of this map and `nearest` of the piece.
        The piece is used up.
        """
        piece._solved.close()
        self._points.window_changed()
        return self._parts.take_over(piece._parts, place, anchor, nearest)

    def rest(self) -> None:
        """Nothing comes for now: the window closes, and little stays in memory. `go_on_from` opens it again."""
        self._solved.close()
        self._parts.keep_in_memory(min(IN_MEMORY_AT_REST, self._config.map.keyframes_in_memory))

    @property
    def correction_is_ready(self) -> bool:
        """Whether `finished_correction` would take one in; for any thread while the map is at rest."""
        return self._aligner.is_ready

    def finished_correction(self) -> bool:
        """Take in an alignment of the whole graph that has come from the other thread; whether one had."""
        correction = self._aligner.finished()
        if correction is not None:
            self._correct(correction)
            self._align_graph()
        return correction is not None

    def know_lengths(self, lengths: Sequence[Length]) -> None:
        """Ways between keyframes that were measured: they count from the next alignment of the whole graph on."""
        self._aligner.lengths = lengths

    def rescale(self, factor: float) -> None:
        """The whole map becomes larger about its origin."""
        grown = self._points.grow(factor)
        self._correct(self._aligner.grow(factor), with_points=not grown)

    def take_ratios(self) -> dict[int, float]:
        """How much larger keyframes have become since this was last asked."""
        ratios, self._ratios = self._ratios, IndexTable()
        return dict(zip(ratios.indices.tolist(), ratios.at(ratios.indices).tolist(), strict=True))

    def cloud(self) -> PointCloud:
        """The whole map, one point a voxel, bounded by `map.max_points`."""
        return self._points.cloud(self._solved.keyframes)

    @property
    def points(self) -> int:
        """How many `cloud` has."""
        return self._points.count(self._solved.keyframes)

    @property
    def settled_points(self) -> int:
        """Of keyframes that have left the window."""
        return len(self._points.past)

    def tiles(self, since: MapVersion | None = None) -> TileChanges:
        """The map's tiles that have changed since somebody was told, or all of them."""
        return self._points.tiles(self._solved.keyframes, since)

    def snapshot(self) -> MapSnapshot:
        return self._parts.snapshot(tuple(index for index in self._window.indices if index in self._store.latest))

    def restore(self, snapshot: MapSnapshot, reopen: bool = True) -> None:
        """Take over a saved map; this one must be new. `reopen`: its window too, else all of it is remembered compactly."""
        self._parts.load(snapshot)
        for keyframe in snapshot.keyframes:
            was_in_window = keyframe.index in snapshot.window
            if reopen and was_in_window and not keyframe.name:
                self._solved.enter(keyframe.index, self._window.encode(keyframe))
            else:  # of a rig: looked for first, wherever it is, and gone on from there
                self._parts.remember(keyframe, was_in_window)
        if len(self._window) > 1:
            # The map stays as it was saved: only what comes next is aligned with the window.
            self._aligner.again(self._window.estimate_all(self._graph), self._solved.views)

    # ---- how -------------------------------------------------------------------------------------------------------------------------

    def _is_rigs(self) -> bool:
        return any(self._window[index].name for index in self._window.indices)

    def _close_loops(self, index: int, stopwatch: Stopwatch) -> tuple[Pair, ...]:
        """Join the new keyframe to an old one that looks alike, if all that can be asked says the same."""
        config = self._config.alignment
        ranked = self._finder.most_alike(index, self._window[index].tokens.image, config.min_alike) if config.loops else []
        if not ranked:
            return ()
        with stopwatch.time("loops"):
            try:
                joined = self._loops.close(index, ranked)
            except Exception:  # of the estimator, whoever wrote it: the keyframe has its place already
                log.exception("keyframe %d was not compared with old ones: it stays in the map without a loop", index)
                return ()
        self._parts.edges.extend(edge for i, j in joined for edge in ((i, j), (j, i)))
        return joined

    def _align_graph(self) -> None:
        """If it is due. One that is under way does not know of the newest: another follows it."""
        newest = self._schedule.newest
        if not self._schedule.is_due or (self._background and not self._aligner.start(newest)):
            return
        self._schedule.began()
        if not self._background:
            self._correct(self._aligner.align(newest))

    def _correct(self, correction: Correction, with_points: bool = True) -> None:
        moves = correction.moves
        self._store.move(moves)
        if with_points:
            self._points.move(moves)
        indices = moves.indices
        self._ratios.put(indices, self._ratios.at_or(indices, 1.0) * moves.at(indices).scale)
        self._parts.disconnect(set(correction.rejected))

    def _as_it_is(self, keyframe: Keyframe) -> Keyframe:
        """Whole, though it may just have left the window, and where the map has it now."""
        now = self._store.latest[keyframe.index]
        if now.depth.shape == keyframe.depth.shape:
            return now
        return replace(keyframe, pose=now.pose, depth=keyframe.depth * np.float32(self._ratios.get(keyframe.index, 1.0)))
