"""What is done for a frame that tracking could not place: looked for in the whole map, and meanwhile mapped apart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Estimator
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import MapperConfig
from dust3r_ros.mapping.following import Following
from dust3r_ros.mapping.keyframes.keyframe_map import Growth, KeyframeMap
from dust3r_ros.mapping.map_piece import piece_in_map
from dust3r_ros.mapping.places.relocalisation import Relocalisation
from dust3r_ros.mapping.recovery import Recovery
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.tracker import TrackedPose
from dust3r_ros.mapping.types import Frame, MapUpdate

log = logging.getLogger(__name__)


class Piece(Protocol):
    """What is mapped while the camera is lost, in a frame and on a scale of its own: a Mapper."""

    keyframe_map: KeyframeMap
    following: Following

    def add(self, frame: Frame) -> MapUpdate: ...

    def configure(self, config: MapperConfig) -> None: ...


@dataclass(frozen=True, eq=False)
class Look:
    """What came of looking for a frame: its pose to the keyframe that was found, or the keyframe that it became, or neither."""

    reason: str
    tracked: TrackedPose | None = None
    growth: Growth | None = None
    joined: int = 0  # keyframes of a map piece that became part of the map

    @property
    def found(self) -> bool:
        return self.tracked is not None or self.growth is not None


class LostCamera:
    """Of one Mapper's map. `new_piece`: makes an empty Mapper; None: nothing is mapped apart."""

    def __init__(
        self, keyframe_map: KeyframeMap, following: Following, estimator: Estimator, new_piece: Callable[[], Piece] | None
    ) -> None:
        self._map, self._following, self._estimator, self._new_piece = keyframe_map, following, estimator, new_piece
        self.recovery = Recovery()
        self.piece: Piece | None = None

    def look(self, frame: Frame, camera: Camera, grey: NDArray[np.uint8], stopwatch: Stopwatch) -> Look:
        """Look for a frame in the whole map, and briefly beside the newest keyframes. `grey`: its tracking image."""
        stamp = frame.stamp
        self._following.tracker.hold()
        self.recovery.lost(stamp)
        in_piece = self._map_apart(replace(frame, camera=camera))
        if not self.recovery.may_search(stamp):
            return self._not_found(stamp, "waits to search again")
        with stopwatch.time("encode"):
            tokens = self._estimator.encode(frame.image, camera)
        with stopwatch.time("relocalise"):
            found = self.recovery.search(self._map, tokens, stamp)
            if found.where.pose is not None:
                joined = self._join_piece(found, in_piece, tokens.camera)
                tracked_camera = self._following.camera(camera).resized(grey.shape[1], grey.shape[0])
                relative = self._following.go_on_from(self._map.go_on_from(found), found.where.pose, stamp, grey, tracked_camera)
                reason = f"found again: {found.where.reason}" + (f"; a piece of {joined} keyframes joined" if joined else "")
                return Look(reason, TrackedPose(relative, found.where.inliers), joined=joined)
        if self.recovery.may_join_newest(stamp):
            growth = self._map.grow(stamp, tokens, stopwatch)
            if growth is not None:
                return Look("found again beside the newest keyframes", growth=growth)
        return self._not_found(stamp, found.where.reason)

    def _not_found(self, stamp: int, why: str) -> Look:
        reason = f"lost for {self.recovery.seconds(stamp):.1f} s: {why}"
        count = 0 if self.piece is None else len(self.piece.keyframe_map.keyframes)
        return Look(reason + (f"; a piece of {count} keyframes grows apart" if count else ""))

    def _map_apart(self, frame: Frame) -> MapUpdate | None:
        """After a few seconds lost, what is seen makes a map of its own; what it says of this frame."""
        if self._new_piece is None or not self.recovery.is_long(frame.stamp):
            return None
        if self.piece is None:
            self.piece = self._new_piece()
        return self.piece.add(frame)

    def _join_piece(self, found: Relocalisation, in_piece: MapUpdate | None, camera: Camera) -> int:
        """The piece becomes part of the map, if it knows this frame too; how many keyframes came. If it does not, it is given up."""
        piece, self.piece = self.piece, None
        if piece is None or in_piece is None or in_piece.pose is None or found.where.pose is None:
            return 0
        nearest = piece.following.keyframe
        shown = [keyframe for index in found.where.keyframes if (keyframe := self._map.keyframe(index)) is not None]
        place = None if nearest is None else piece_in_map(in_piece.pose, [nearest], found.where.pose, shown, camera)
        if nearest is None or place is None:
            log.info("a map piece of %d keyframes is given up: its scale in the map is not known", len(piece.keyframe_map.keyframes))
            return 0
        new = self._map.take_over(piece.keyframe_map, place, found.where.keyframes[0], nearest.index)
        self._following.trajectory.take_over(piece.following.trajectory, new)
        return len(new)
