"""Every keyframe of the map: the newest whole, those that left the window compact, and of all of them the pose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.keyframe_views import compact
from dust3r_ros.mapping.types import Keyframe


class KeyframeStore:
    """Keyframes by index. At most `max_pictures` keep their picture and depth; of the others the pose remains."""

    def __init__(self, max_pictures: int) -> None:
        self.max_pictures = max_pictures
        self.latest: dict[int, Keyframe] = {}
        self.poses: dict[int, NDArray[np.float64]] = {}
        self.units: dict[int, float] = {}  # how many map units a keyframe's own unit has become, where corrections changed it
        self._next = 0

    def next_index(self) -> int:
        """An index that no keyframe of this map ever had."""
        self._next += 1
        return self._next - 1

    def peek_index(self) -> int:
        """The index that the next keyframe gets."""
        return self._next

    def skip_to(self, index: int) -> None:
        """The next keyframe gets this index, or a later one."""
        self._next = max(self._next, index)

    def put(self, keyframe: Keyframe) -> None:
        """A new keyframe, or a better version of a known one."""
        self.latest[keyframe.index] = keyframe
        self.poses[keyframe.index] = keyframe.pose
        self._next = max(self._next, keyframe.index + 1)

    def retire(self, index: int) -> list[int]:
        """A keyframe has left the window: remember it compactly, and thin out when there are too many. Whose picture and depth went.

        What goes is every other of the older half, so that what stays is still spread over the whole way.
        """
        self.latest[index] = compact(self.latest[index])
        gone = sorted(self.latest)[: self.max_pictures // 2][1::2] if len(self.latest) > self.max_pictures else []
        for one in gone:
            del self.latest[one]
        return gone

    def move(self, moves: Mapping[int, Similarity]) -> None:
        """Keyframes and their depths, each by a similarity of its own."""
        for index, move in moves.items():
            if index not in self.poses:
                continue
            self.poses[index] = move.apply_pose(self.poses[index])
            self.units[index] = self.units.get(index, 1.0) * float(move.scale)
            keyframe = self.latest.get(index)
            if keyframe is not None:
                depth = keyframe.depth * np.float32(move.scale)
                self.latest[index] = replace(keyframe, pose=self.poses[index], depth=depth)

    def all(self) -> tuple[Keyframe, ...]:
        return tuple(self.latest[index] for index in sorted(self.latest))
