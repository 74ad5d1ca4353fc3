"""The points of the map: of keyframes that have left the window, kept for good, and of the window's when somebody asks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.config import MapConfig
from dust3r_ros.mapping.points.floaters import without_floaters
from dust3r_ros.mapping.points.keyframe_views import keyframe_cloud
from dust3r_ros.mapping.points.map_tiles import MapVersion, TileChanges, tile_changes
from dust3r_ros.mapping.points.saved_map import owners_of, voxel_size_of
from dust3r_ros.mapping.points.voxel_map import SHARE, VoxelMap
from dust3r_ros.mapping.types import Keyframe, MapSnapshot, PointCloud

log = logging.getLogger(__name__)

TOO_MANY_UNSURE = 4  # keyframes from the map's beginning on without one point that is sure enough: somebody should know


class MapPoints:
    """`fused` are the keyframes whose points are kept for good."""

    def __init__(self, config: MapConfig) -> None:
        self._config = config
        self._own_size = SHARE  # of a voxel, map units: where none is set
        self.past = self._empty()
        self.fused: set[int] = set()
        self._surest: list[float] = []  # confidences, of the map's first keyframes
        self._is_watching = True
        self._whole: VoxelMap | None = None  # made when somebody asks, for as long as the map stays as it is

    def configure(self, config: MapConfig) -> None:
        """Go on with new settings; a new voxel size re-bins the points."""
        points, owners = self.past.cloud(), self.past.owners()
        self._config = config
        self.past, self._whole = self._empty(), None
        self.past.add(points, owners)

    def window_changed(self) -> None:
        """What the window's keyframes show is asked of them anew."""
        self._whole = None

    def fuse(self, keyframe: Keyframe, beside: Sequence[Keyframe] = ()) -> None:
        """Keep a keyframe's points for good, but what those `beside` it see through: the keyframes of the window, itself among them."""
        at = [n for n, other in enumerate(beside) if other.index == keyframe.index]
        self._add(self._cleaned(beside, at)[0] if at else keyframe, self.past)
        self.fused.add(keyframe.index)
        self._whole = None
        if self._is_watching:
            self._watch(keyframe)

    def _watch(self, keyframe: Keyframe) -> None:
        """A model that is never sure enough would leave the map empty, and nobody would know why."""
        self._surest.append(float(keyframe.confidence.max()))
        least, surest = self._config.min_confidence, max(self._surest)
        is_empty = surest < least and not len(self.past)  # a saved map, or another piece, may have brought points
        self._is_watching = is_empty and len(self._surest) < TOO_MANY_UNSURE
        if is_empty and not self._is_watching:
            log.warning(
                "the map stays empty: no point of its first %d keyframes has a confidence of map.min_confidence (%g), the surest has %.3g; "
                "set it lower, and publish.cloud_min_confidence with it, or take another model",
                TOO_MANY_UNSURE, least, surest,
            )  # fmt: skip

    def move(self, moves: Mapping[int, Similarity]) -> None:
        """Every point with its keyframe."""
        self.past.move(moves)
        self._whole = None

    def grow(self, factor: float) -> bool:
        """The whole world becomes larger about its origin. False where voxels keep the size that is set: `move` is to follow."""
        self._own_size *= factor
        self._whole = None
        if not self._config.voxel_size:
            self.past.grow(factor)
        return not self._config.voxel_size

    def take_over(self, piece: MapPoints, place: Similarity, new: Mapping[int, int]) -> None:
        """All points of a map piece, at `place`; `new`: the indices here of its keyframes."""
        cloud, owners = piece.past.cloud(), piece.past.owners()
        moved = replace(cloud, points=place.apply(cloud.points).astype(np.float32))
        self.past.add(moved, np.array([new.get(int(owner), -1) for owner in owners], np.int32))
        self.fused.update(new.values())
        self._whole = None

    def load(self, snapshot: MapSnapshot) -> None:
        """Those of a saved map."""
        self._own_size = voxel_size_of(snapshot, replace(self._config, voxel_size=0.0))
        self.past, self._whole = self._empty(), None
        self.past.add(snapshot.cloud, owners_of(snapshot))

    def cloud(self, window: Iterable[Keyframe]) -> PointCloud:
        """One point a voxel, bounded by `map.max_points`, with those of the keyframes in the window."""
        whole = self._with(window)
        if len(whole) > self._config.max_points:
            whole = whole.copy()
            whole.max_points = self._config.max_points
            whole.bound()
        return whole.cloud()

    def count(self, window: Iterable[Keyframe]) -> int:
        return len(self._with(window))

    def tiles(self, window: Iterable[Keyframe], since: MapVersion | None) -> TileChanges:
        """The tiles that have changed since somebody was told, or all of them."""
        return tile_changes(self._with(window), self.past.version, since)

    def _with(self, window: Iterable[Keyframe]) -> VoxelMap:
        if self._whole is None:
            whole = self.past.copy()
            whole.max_points *= 2  # the window comes on top: it does not change tiles that are far away
            beside = list(window)
            for keyframe in self._cleaned(beside, [n for n, keyframe in enumerate(beside) if keyframe.index not in self.fused]):
                self._add(keyframe, whole)
            self._whole = whole
        return self._whole

    def _cleaned(self, beside: Sequence[Keyframe], judged: Sequence[int]) -> list[Keyframe]:
        return without_floaters(beside, judged) if judged and self._config.remove_floaters else [beside[n] for n in judged]

    def _add(self, keyframe: Keyframe, voxels: VoxelMap) -> None:
        voxels.add(keyframe_cloud(keyframe, self._config.min_confidence), keyframe.index)

    def _empty(self) -> VoxelMap:
        config = self._config
        return VoxelMap(config.voxel_size or self._own_size, config.max_points, config.tile_size, config.max_points_per_tile)
