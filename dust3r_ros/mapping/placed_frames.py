"""Frames that were placed in a loaded map: with the depth that placed them the camera is followed from them, as from keyframes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Tokens
from dust3r_ros.mapping.places.placing import Localisation
from dust3r_ros.mapping.tracking.frame_trajectory import MAX_FRAMES
from dust3r_ros.mapping.types import Keyframe

KEPT = 3  # with picture and depth: a sensor's readings may come late

Pose = NDArray[np.float64]


class PlacedFrames:
    """No part of the map. Of the oldest only the pose is known, for as long as a frame may have been followed from it."""

    def __init__(self) -> None:
        self.poses: dict[int, Pose] = {}  # camera to the map's world, by index
        self.units: dict[int, float] = {}  # how many map units each one's own unit has become
        self._newest: list[Keyframe] = []
        self._count = 0

    def put(self, stamp: int, query: Tokens, found: Localisation) -> int:
        """A frame that was placed; its index."""
        assert found.pose is not None
        assert found.depth is not None
        assert found.confidence is not None
        index, self._count = self._count, self._count + 1
        placed = Keyframe(index, stamp, found.pose, query.source, query.camera, query.image, found.depth, found.confidence)
        self._newest = [*self._newest[1 - KEPT :], placed]
        self.poses[index], self.units[index] = found.pose, 1.0
        if len(self.poses) > MAX_FRAMES:  # no frame is remembered that was followed from it
            oldest = next(iter(self.poses))
            del self.poses[oldest], self.units[oldest]
        return index

    def keyframe(self, index: int) -> Keyframe | None:
        return next((one for one in self._newest if one.index == index), None)

    @property
    def newest(self) -> Sequence[Keyframe]:
        """Oldest first."""
        return self._newest

    def grow(self, factor: float) -> None:
        """The map has become larger about its origin."""
        for index, pose in self.poses.items():
            larger = pose.copy()
            larger[:3, 3] *= factor
            self.poses[index] = larger
            self.units[index] *= factor
        self._newest = [replace(one, pose=self.poses[one.index], depth=one.depth * np.float32(factor)) for one in self._newest]
