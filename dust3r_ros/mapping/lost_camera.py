"""What is done for a frame that tracking could not place: looked for in the whole map, and meanwhile mapped apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Estimator
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.following import Following
from dust3r_ros.mapping.keyframes.keyframe_map import Growth, KeyframeMap
from dust3r_ros.mapping.map_pieces import MapPieces, sighting
from dust3r_ros.mapping.recovery import Recovery
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.tracker import TrackedPose
from dust3r_ros.mapping.types import Frame


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
    """Of one Mapper's map. `pieces`: what is mapped apart."""

    def __init__(self, keyframe_map: KeyframeMap, following: Following, estimator: Estimator, pieces: MapPieces) -> None:
        self._map, self._following, self._estimator, self._pieces = keyframe_map, following, estimator, pieces
        self.recovery = Recovery()

    def seen(self, stamp: int) -> None:
        """The camera's place in the map is known at this time."""
        self.recovery.seen(stamp)
        self._pieces.rest()

    def look(self, frame: Frame, camera: Camera, grey: NDArray[np.uint8], stopwatch: Stopwatch) -> Look:
        """Look for a frame in the whole map, in the pieces, and briefly beside the newest keyframes. `grey`: its tracking image."""
        stamp = frame.stamp
        self._following.tracker.hold()
        self.recovery.lost(stamp)
        is_long = self.recovery.is_long(stamp)
        in_piece = self._pieces.add(replace(frame, camera=camera)) if is_long else None
        if not self.recovery.may_search(stamp):
            return self._not_found(stamp, "waits to search again")
        with stopwatch.time("encode"):
            tokens = self._estimator.encode(frame.image, camera)
        known = self._pieces.known(in_piece, tokens.camera)
        with stopwatch.time("relocalise"):
            found = self.recovery.search(self._map, tokens, stamp)
            if found.where.pose is not None:
                in_map = sighting(self._map, found, stamp, tokens.camera)
                joined = self._pieces.found_in_map(self._map, self._following, in_map, known)
                reason = f"found again: {found.where.reason}" + (f"; a piece of {joined} keyframes joined" if joined else "")
                return Look(reason, self._following.go_on_by(self._map, found, stamp, grey, camera), joined=joined)
            if is_long and not found.ambiguous:
                self._pieces.look(tokens, stamp, grey, camera, known)
        if self.recovery.may_join_newest(stamp):
            growth = self._map.grow(stamp, tokens, stopwatch)
            if growth is not None:
                return Look("found again beside the newest keyframes", growth=growth)
        return self._not_found(stamp, found.where.reason)

    def _not_found(self, stamp: int, why: str) -> Look:
        reason = f"lost for {self.recovery.seconds(stamp):.1f} s: {why}"
        waiting, grows = len(self._pieces.waiting), self._pieces.growing
        if grows is not None and (count := len(grows.keyframe_map.standpoints)):
            reason += f"; a piece of {count} keyframes grows apart"
        return Look(reason + (f"; {waiting} pieces wait" if waiting else ""))
