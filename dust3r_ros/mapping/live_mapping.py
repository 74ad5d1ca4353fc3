"""The map's half of `LiveTracking`, on the mapping thread: the Mapper looks at a frame and is told of those that were tracked meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.followed import Followed, Reference, reference_of
from dust3r_ros.mapping.handover import Handover
from dust3r_ros.mapping.localiser import Localiser
from dust3r_ros.mapping.mapper import Mapper
from dust3r_ros.mapping.tracking.remembered_frames import Remembered
from dust3r_ros.mapping.tracking.tracker import Tracks
from dust3r_ros.mapping.types import Frame, MapUpdate, TrackingState

Pose = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Passed:
    """A frame that was tracked and is no keyframe."""

    stamp: int
    own: Pose  # [4, 4] its camera to the reference's, in the reference's own unit, which no correction changes
    reference: Reference  # by which it was placed
    used: Remembered | None


class LiveMapping:
    """What becomes of the map goes to the tracking thread by the handover. But for `passed` and `reason` all is of the mapping thread."""

    def __init__(self, mapper: Mapper | Localiser, handover: Handover, on_mapped: Callable[[MapUpdate | None], None]) -> None:
        self._mapper, self._handover, self._on_mapped = mapper, handover, on_mapped
        self.passed: deque[Passed] = deque()  # that the Mapper has not been told of; the tracking thread puts them there
        self.reason = ""  # why a lost camera was not found; the tracking thread says so

    def restart(self) -> None:
        """As `LiveTracking.restart`."""
        self.passed.clear()
        self.reason = ""

    @property
    def waiting(self) -> int:
        """How many of `passed` there are; for any thread."""
        return len(self.passed)

    def look(self, frame: Frame, followed: Followed) -> None:
        """What the tracking thread has asked for."""
        self.hand_in()
        before = followed.tracks if followed.tracks is not None else self._points
        update = None
        try:
            update = self._mapper.add(frame, followed)
            corrected = self._mapper.take_corrections() or update.corrected
            update = replace(update, corrected=corrected)
            self.reason = update.reason.partition(": ")[2] if update.state is TrackingState.LOST else ""
        finally:
            self._handover.publish(self.reference(before), update)
        self._on_mapped(update)

    def take_correction(self) -> None:
        """The tracking thread has seen that one is ready."""
        try:
            corrected = self._mapper.take_corrections()
        finally:
            self._handover.publish(self.reference(self._points), None)
        if corrected:
            self._on_mapped(None)

    def refresh(self) -> None:
        """See `LiveTracking.refresh`."""
        corrected = self._mapper.take_corrections()
        self._handover.correct(self.reference(self._points))
        if corrected:
            self._on_mapped(None)

    def hand_in(self) -> None:
        """See `LiveTracking.hand_in`."""
        following, references = self._mapper.following, set[int]()
        while self.passed:
            one = self.passed.popleft()
            following.trajectory.append(one.stamp, one.reference.index, one.own)
            if one.used is not None and one.reference.keyframe is not None:
                following.remember(one.used, one.reference.keyframe, one.reference.unit)
                references.add(one.reference.index)
        for older in sorted(references - {following.reference}):  # tracked by that while the next keyframe was made
            following.settle(older, self._mapper.calibration.readout)

    def reference(self, before: Tracks | None = None) -> Reference | None:
        """What is to be followed now. `before`: the points that were."""
        following = self._mapper.following
        return reference_of(following, 1.0 if following.reference is None else self._mapper.unit(following.reference), before)

    @property
    def _points(self) -> Tracks | None:
        """That the Mapper follows."""
        now = self._mapper.following.tracker.now
        return None if now is None else now[1]
