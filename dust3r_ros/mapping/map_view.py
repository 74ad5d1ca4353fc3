"""What a map that grows shows of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.following import Following
from dust3r_ros.mapping.keyframes.keyframe_map import KeyframeMap
from dust3r_ros.mapping.map_pieces import MapPieces
from dust3r_ros.mapping.points.map_tiles import MapVersion, TileChanges
from dust3r_ros.mapping.scene_graph import Pair
from dust3r_ros.mapping.types import Keyframe, PointCloud, Standpoint

Pose = NDArray[np.float64]


class MapView:
    """Part of a Mapper."""

    keyframe_map: KeyframeMap
    following: Following
    _apart: MapPieces

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        """All that are remembered, oldest first; those that have left the window are smaller than they were, and read when asked for."""
        return self.keyframe_map.keyframes

    @property
    def standpoints(self) -> Mapping[int, Standpoint]:
        """Of all keyframes that are remembered, by index: when and where, without the pictures, which may be on the disk."""
        return self.keyframe_map.standpoints

    def unit(self, index: int) -> float:
        """How many times its first size a keyframe with its depths has now: corrections of the whole map changed it."""
        return self.keyframe_map.units.get(index, 1.0)

    @property
    def edges(self) -> tuple[Pair, ...]:
        """Directed pairs of keyframe indices that the map was made from."""
        return self.keyframe_map.edges

    def cloud(self) -> PointCloud:
        """The whole map, one point a voxel, bounded by `map.max_points`."""
        return self.keyframe_map.cloud()

    @property
    def points(self) -> int:
        """How many points the map has."""
        return self.keyframe_map.points

    def tiles(self, since: MapVersion | None = None) -> TileChanges:
        """The map's tiles that have changed since `since`, the `version` of what was told before; None: all there are."""
        return self.keyframe_map.tiles(since)

    @property
    def pieces(self) -> tuple[int, ...]:
        """Keyframes of each piece of map that the camera saw while it was lost, and whose place is not known yet."""
        return self._apart.sizes

    def trajectory(self, at_most: int | None = None) -> list[tuple[int, Pose]]:
        """[(stamp in ns, camera to world 4x4)] of the frames that have a pose, by stamp, as corrected as the map is now.

        All of them, or evenly thinned to `at_most`.
        """
        return self.following.trajectory.poses(self.keyframe_map.poses, at_most, self.keyframe_map.units)
