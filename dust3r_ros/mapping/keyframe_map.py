"""The map that grows keyframe by keyframe: the window that is still solved, what has left it, and the points of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.mapping.config import MapConfig, MapperConfig
from dust3r_ros.mapping.keyframe_store import KeyframeStore
from dust3r_ros.mapping.keyframe_views import keyframe_cloud
from dust3r_ros.mapping.scene_graph import Pair, SceneGraph
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.types import Keyframe, MapSnapshot, PointCloud
from dust3r_ros.mapping.voxel_map import VoxelMap
from dust3r_ros.mapping.window import Entry, KeyframeWindow, first_map_frame, onto_map


@dataclass(frozen=True, eq=False)
class Growth:
    """What a new keyframe brought."""

    index: int
    pairs: tuple[Pair, ...]
    revised: tuple[Keyframe, ...]  # the new keyframe and those of the window that it corrected


class KeyframeMap:
    """Keyframes, their graph and their points. The map exists from the second keyframe on: one image has no depth."""

    def __init__(self, config: MapperConfig, estimator: Estimator) -> None:
        self._window_size, self._map_config = config.window.size, config.map
        self._graph = SceneGraph.parse(config.window.scene_graph)
        self._window = KeyframeWindow(estimator)
        self._store = KeyframeStore(config.map.max_keyframes)
        self._voxels = VoxelMap(config.map.voxel_size, config.map.max_points)
        self._edges: list[Pair] = []

    @property
    def exists(self) -> bool:
        return bool(self._store.latest)

    @property
    def poses(self) -> dict[int, NDArray[np.float64]]:
        """Camera to world (4x4) of every keyframe there ever was, by index."""
        return self._store.poses

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        return self._store.all()

    @property
    def edges(self) -> tuple[Pair, ...]:
        return tuple(self._edges)

    def keyframe(self, index: int) -> Keyframe | None:
        return self._store.latest.get(index)

    def configure(self, config: MapperConfig) -> None:
        """Go on with new settings; a new voxel size re-bins the points."""
        if config.map != self._map_config:
            points = self._voxels.cloud()
            self._voxels = VoxelMap(config.map.voxel_size, config.map.max_points)
            self._voxels.add(points)
            self._store.max_pictures = config.map.max_keyframes
        self._window_size, self._map_config = config.window.size, config.map
        self._graph = SceneGraph.parse(config.window.scene_graph)

    def begin(self, stamp: int, tokens: Tokens) -> int:
        """The first keyframe waits in the window for a second one; its index."""
        index = self._store.next_index()
        self._window.add(index, Entry(stamp, tokens))
        return index

    def grow(self, stamp: int, tokens: Tokens, stopwatch: Stopwatch) -> Growth | None:
        """Estimate the new keyframe's pairs and place it; None, and nothing has changed, if no depth or place is found for it."""
        index = self._store.next_index()
        pairs = tuple(self._graph.new_pairs(self._window.indices, index, both_directions=True))
        self._window.add(index, Entry(stamp, tokens))
        with stopwatch.time("estimate"):
            self._window.estimate(pairs)
        with stopwatch.time("align"):
            revised = self._place(index)
        if not revised:
            self._window.remove(index)
            return None
        self._edges.extend(pairs)
        with stopwatch.time("fuse"):
            self._slide()
        return Growth(index, pairs, revised)

    def align(self) -> tuple[Keyframe, ...]:
        """Estimate and solve the window once more; the revised keyframes (none while there is no map)."""
        if not self.exists:
            return ()
        self._window.estimate_all(self._graph)
        return self._place(self._window.indices[-1])

    def cloud(self) -> PointCloud:
        """The whole map, one point a voxel, bounded by `map.max_points`."""
        whole = self._voxels.copy()
        for index in self._window.indices:
            self._fuse(index, whole, self._map_config)
        return whole.cloud()

    def snapshot(self) -> MapSnapshot:
        window = tuple(index for index in self._window.indices if index in self._store.latest)
        return MapSnapshot(self._store.all(), self.edges, self._voxels.cloud(), window)

    def restore(self, snapshot: MapSnapshot) -> None:
        """Take over a saved map; this one must be new."""
        for keyframe in snapshot.keyframes:
            self._store.put(keyframe)
            if keyframe.index in snapshot.window:
                self._window.encode(keyframe)
        self._voxels.add(snapshot.cloud)
        self._edges = list(snapshot.edges)
        if len(self._window) > 1:
            self._window.estimate_all(self._graph)

    def _place(self, newest: int) -> tuple[Keyframe, ...]:
        """Solve the window, join it to the map and keep the result; empty if the newest keyframe found no place."""
        solution = self._window.solve()
        if newest not in solution:
            return ()
        to_map = onto_map(solution, self._store.latest) if self.exists else first_map_frame(solution)
        if to_map is None:
            return ()
        revised = self._window.keyframes(solution, to_map)
        for keyframe in revised:
            self._store.put(keyframe)
        return revised

    def _slide(self) -> None:
        """Let the oldest keyframes go: their points into the map for good, themselves remembered compactly."""
        while len(self._window) > self._window_size:
            oldest = self._window.indices[0]
            self._fuse(oldest, self._voxels, self._map_config)
            self._store.retire(oldest)
            self._window.remove(oldest)

    def _fuse(self, index: int, voxels: VoxelMap, config: MapConfig) -> None:
        keyframe = self._store.latest.get(index)
        if keyframe is not None:
            voxels.add(keyframe_cloud(keyframe, config.min_confidence))
