"""A saved map that a camera is localised in: it stands as it was saved, but for its scale where it had none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dust3r_ros.estimators import Estimator
from dust3r_ros.mapping.config import MapConfig
from dust3r_ros.mapping.places.place_finder import PlaceFinder
from dust3r_ros.mapping.points.map_tiles import MapVersion, TileChanges, tile_changes
from dust3r_ros.mapping.points.saved_map import grown, whole_voxels
from dust3r_ros.mapping.points.voxel_map import VoxelMap
from dust3r_ros.mapping.scale.scale_fusion import MapScale
from dust3r_ros.mapping.scene_graph import Pair
from dust3r_ros.mapping.types import Keyframe, MapSnapshot, PointCloud, Standpoint

EMPTY = MapSnapshot((), (), PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32)), ())


class LoadedMap:
    """As large as it is known to be now. Points are binned when somebody asks for them."""

    def __init__(self, snapshot: MapSnapshot, estimator: Estimator, config: MapConfig) -> None:
        self._saved = self._now = snapshot
        self._config, self._size = config, 1.0  # so many times as large as it was saved
        self.finder = PlaceFinder(snapshot, estimator) if snapshot.keyframes else None
        self._voxels: VoxelMap | None = None

    def configure(self, config: MapConfig) -> None:
        self._config, self._voxels = config, None

    @property
    def saved_scale(self) -> MapScale:
        """What the file says."""
        return MapScale(self._saved.scale_source, self._saved.scale_uncertainty)

    def grow(self, factor: float) -> None:
        """The whole becomes larger about its origin."""
        self._size *= factor
        self._now, self._voxels = grown(self._saved, self._size), None
        if self.finder is not None:
            self.finder.grow(self._now.keyframes, factor)

    def snapshot(self, scale: MapScale) -> MapSnapshot:
        """The map as it was given, or with the scale that it has got since."""
        if scale == self.saved_scale or not scale.is_metric:
            return self._now
        return replace(self._now, scale_source=scale.source, scale_uncertainty=scale.uncertainty)

    @property
    def standpoints(self) -> Mapping[int, Standpoint]:
        return {} if self.finder is None else self.finder.standpoints

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        return self._now.keyframes

    @property
    def edges(self) -> tuple[Pair, ...]:
        return self._saved.edges

    @property
    def pieces(self) -> tuple[int, ...]:
        """Keyframes of each piece that was saved with it."""
        return tuple(len(piece.keyframes) for piece in self._saved.pieces)

    @property
    def voxels(self) -> VoxelMap:
        """The points of all of it."""
        if self._voxels is None:
            self._voxels = whole_voxels(self._now, self._config)
        return self._voxels

    def tiles(self, since: MapVersion | None) -> TileChanges:
        """All of the map, then nothing, unless it has grown."""
        return tile_changes(self.voxels, self.voxels.version, since)
