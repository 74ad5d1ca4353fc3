"""A pose for every frame while the map grows: tracking and mapping side by side, as in PTAM (Klein and Murray, ISMAR 2007).

Frames are tracked by the reference keyframe's points at camera rate. One that is due as a keyframe, or in which a lost camera is to be
looked for, goes to the Mapper, on a thread of its own; one at a time, and the newest when that thread is free: nothing queues. What came
of it is taken over between two frames: the points of the new reference have been followed to the newest frame by then, and the odometry
goes on from where it is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import MapperConfig
from dust3r_ros.mapping.followed import Followed, Grey, Reference, caught_up, reference_of, step
from dust3r_ros.mapping.following import Pending, Remembered, baseline
from dust3r_ros.mapping.localiser import Localiser
from dust3r_ros.mapping.mapper import MAX_PENDING, Mapper
from dust3r_ros.mapping.recovery import Recovery
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.coverage import Coverage
from dust3r_ros.mapping.tracking.frame_check import check_frame
from dust3r_ros.mapping.tracking.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.tracking.keyframe_selection import Choice, KeyframeSelector
from dust3r_ros.mapping.tracking.tracker import TrackedPose, Tracks, parallax, placed_against, tracking_image
from dust3r_ros.mapping.tracking.turning import Turning, camera_by, pose_by
from dust3r_ros.mapping.types import Frame, Keyframe, MapUpdate, TrackingState

MAX_SINCE = 64  # tracking images kept since the frame that the map looks at; beyond it every other goes

Pose = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mapped:
    """What came of the frame that the map was asked to look at."""

    reference: Reference | None
    update: MapUpdate | None  # None: it was only asked for the reference, or the frame could not be used


@dataclass(frozen=True, eq=False)
class Newest:
    """The newest frame, tracked."""

    frame: Frame
    camera: Camera  # of the tracked image
    grey: Grey
    has_pose: bool


class LiveTracking:
    """In front of one Mapper, or of a Localiser, which has its methods.

    `add` and `take_over` belong to the tracking thread, what is given to `run` to the mapping thread.
    """

    def __init__(
        self, mapper: Mapper | Localiser, run: Callable[[Callable[[], None]], Any], on_mapped: Callable[[MapUpdate | None], None]
    ) -> None:
        """`run(job)` has a job done on the mapping thread, one after the other; the Mapper is used by these jobs alone.

        `on_mapped` is called there with what each frame that the Mapper looked at has changed; None: the map as a whole has moved.
        """
        self._mapper, self._run, self._on_mapped = mapper, run, on_mapped
        self._passed: deque[tuple[int, int, Pose, Remembered | None]] = (
            deque()
        )  # tracked frames that the Mapper has not been told of, in keyframes' units
        self._lock = threading.Lock()  # of what both threads touch: the images since, and the result
        self._since: list[Grey] | None = None  # tracking images since the one that the map looks at; None: it looks at none
        self._result: Mapped | None = None
        self._reason, self._epoch = "", 0
        self.restart()

    def restart(self) -> None:
        """The Mapper began anew, or has another map: forget what was followed. Neither thread may be at work here."""
        self.abandon()
        self.state = self._mapper.state
        self._selector = KeyframeSelector(self._mapper.config.keyframes)
        self._recovery, self._odometry = Recovery(), FrameTrajectory()
        self._reference: Reference | None = None
        self._covers: Coverage | None = None
        self._points: tuple[Grey, Tracks] | None = None
        self._good: tuple[Grey, Tracks] | None = None  # in the newest frame whose place was known
        self._relative: Pose | None = None
        self._own: Grey | None = None  # the reference's own tracking image, where the points are as they were chosen in it
        self._turning = Turning()
        self._pending: list[Pending] = []
        self._newest: Newest | None = None
        self._last_stamp: int | None = None
        self._seen: int | None = None  # stamp of the newest frame whose place was known
        self._found_again = False
        self._passed.clear()
        with self._lock:
            self._since, self._result = None, None
        reference = self._current(None)
        if reference is not None:
            self._follow(reference)

    def abandon(self) -> None:
        """What the map was asked for and has not begun is not done any more."""
        self._epoch += 1

    @property
    def is_idle(self) -> bool:
        """Whether the map looks at no frame, and all that it found is known here."""
        with self._lock:
            return self._since is None and self._result is None

    # ---- the tracking thread -----------------------------------------------------------------------------------------------------------

    def add(self, frame: Frame) -> MapUpdate:
        """Track a frame: its pose and odometry, and nothing of the map. Raises FrameError and StampError as the Mapper does."""
        check_frame(frame, self._last_stamp)
        self._last_stamp = frame.stamp
        self._take_over()
        stopwatch = Stopwatch()
        with stopwatch.time("track"):
            grey = tracking_image(frame.image)
            whole = camera_by(self._keyframe, self._mapper.calibration.camera(frame))
            camera = whole.resized(grey.shape[1], grey.shape[0])
            tracks = None if self._points is None else step(*self._points, grey)
            if tracks is not None and self._own is not None:
                tracks = placed_against(self._own, grey, tracks)
            tracked = self._pose_of(tracks, camera, frame.stamp)
            if tracked is not None and tracks is not None and not self._recovery.believes(frame.stamp, tracked, tracks):
                tracked = None
            moved, overlap = (None, 0.0) if tracks is None else (parallax(tracks, camera), tracks.overlap)
            new = 0.0 if self._covers is None or tracked is None else self._covers.new_share(camera, tracked.pose)
            choice = self._selector.choose(frame.stamp, grey, moved, overlap, self._baseline(tracked), new)
        seen = self._seen
        reason = self._stand(frame.stamp, grey, tracks, tracked, choice)
        self._newest = Newest(frame, camera, grey, tracked is not None)
        if not self._ask(frame, grey, tracks, tracked, choice, seen):
            self._remember(frame.stamp, tracks, tracked, camera)
        return self._told(frame, reason, tracked, stopwatch)

    def take_over(self) -> MapUpdate | None:
        """What the map has found since, as `add` does: the newest frame's pose, if that was not known before."""
        found = self._take_over()
        return None if found is None else self._told(*found, Stopwatch())

    def _take_over(self) -> tuple[Frame, str, TrackedPose] | None:
        with self._lock:
            mapped, self._result = self._result, None
        if mapped is None:
            return None
        if mapped.reference is None:
            self._reference = self._points = None
            return None
        if mapped.reference.tracks is None:
            self._corrected(mapped.reference)
            return None
        self._follow(mapped.reference)
        if mapped.update is None:
            return None
        self._selector.accepted(mapped.update.frame.stamp)
        self._pending = []
        return None if self._newest is None else self._stand_on_new_reference(self._newest, mapped.update)

    def _stand(self, stamp: int, grey: Grey, tracks: Tracks | None, tracked: TrackedPose | None, choice: Choice) -> str:
        """The newest frame is there, or its place is not known; why."""
        self._points = None if tracks is None else (grey, tracks)
        if tracked is not None and self._reference is not None and self._reference.keyframe is not None:
            self._see(stamp)
            self._relative, self._good = tracked.pose, self._points
            self._turning.stand(stamp, tracked.pose)
            at = self._reference.index
            self._odometry.advance(at, tracked.pose, {at: self._reference.keyframe.pose}, tracked.covariance)
        elif self.state is TrackingState.LOST or self._keyframe is not None:
            self.state = TrackingState.LOST
            self._recovery.lost(stamp)
            self._points = self._good  # the newest frame led nowhere: the next one is followed from the last good one
            return f"lost for {self._recovery.seconds(stamp):.1f} s: {self._reason or 'looked for in the map'}"
        return choice.reason

    def _see(self, stamp: int) -> None:
        self.state, self._seen = TrackingState.TRACKING, stamp
        self._recovery.seen(stamp)

    def _ask(self, frame: Frame, grey: Grey, tracks: Tracks | None, tracked: TrackedPose | None, choice: Choice, seen: int | None) -> bool:
        """Have the map look at this frame, if there is something to be found and it is free; whether it does."""
        with self._lock:
            if self._since is not None:
                self._since.append(grey)
                if len(self._since) > MAX_SINCE:
                    del self._since[:-1:2]
                return False
            if self._result is not None:  # it comes with the next frame
                return False
        is_lost = self.state is TrackingState.LOST
        if not is_lost and not (choice.is_due and self._mapper.may_try(frame.stamp)):
            if self._mapper.correction_is_ready:
                with self._lock:
                    self._since = []
                epoch = self._epoch
                self._run(lambda: self.refresh() if epoch == self._epoch else None)
            return False
        relative = None if tracked is None else tracked.pose
        # `add` has put this frame's pose there; the Mapper finds it again from those before it.
        recent = tuple(entry for entry in self._turning.recent if entry[0] < frame.stamp)
        followed = Followed(grey, None if is_lost else tracks, relative, choice, seen, tuple(self._pending), recent)
        with self._lock:
            self._since = []
        epoch = self._epoch
        self._run(lambda: self._map(frame, followed) if epoch == self._epoch else None)
        return True

    def _remember(self, stamp: int, tracks: Tracks | None, tracked: TrackedPose | None, camera: Camera) -> None:
        """A frame that the map does not look at has its place, or gets it once there is depth."""
        if tracked is not None:
            self._pass(stamp, tracked.pose, tracks, camera)
        elif self.state is TrackingState.INITIALISING and tracks is not None:
            self._pending = [*self._pending[1 - MAX_PENDING :], (stamp, tracks, camera)]

    def _told(self, frame: Frame, reason: str, tracked: TrackedPose | None, stopwatch: Stopwatch) -> MapUpdate:
        odometry = self._odometry.odometry
        pose = None
        if tracked is not None and self._reference is not None and self._reference.keyframe is not None:
            pose = self._reference.keyframe.pose @ tracked.pose
        found_again, self._found_again = self._found_again and pose is not None, self._found_again and pose is None
        return MapUpdate(
            frame,
            self.state,
            reason,
            pose=pose,
            odometry=odometry,
            odometry_covariance=None if odometry is None else self._odometry.covariance,
            inliers=tracked.inliers if tracked is not None else 0.0,
            seconds=stopwatch.seconds,
            found_again=found_again,
            lost_seconds=self._recovery.seconds(frame.stamp),
        )

    @property
    def _keyframe(self) -> Keyframe | None:
        return None if self._reference is None else self._reference.keyframe

    def _pose_of(self, tracks: Tracks | None, camera: Camera, stamp: int) -> TrackedPose | None:
        return pose_by(tracks, self._keyframe, camera, self._relative, stamp, self._turning, self._mapper.calibration.readout)

    def _baseline(self, tracked: TrackedPose | None) -> float | None:
        return None if self._keyframe is None else baseline(self._keyframe, tracked)

    def _pass(self, stamp: int, relative: Pose, tracks: Tracks | None, camera: Camera) -> None:
        """To be told to the Mapper, in the keyframe's own unit, which no correction changes."""
        assert self._reference is not None
        own = relative.copy()
        own[:3, 3] /= self._reference.unit
        at, turning = self._reference.index, self._turning
        used = None if tracks is None else Remembered(stamp, at, tracks, camera, turning.newest, turning.reference)
        self._passed.append((stamp, at, own, used))

    # ---- a reference that is new, or has moved -----------------------------------------------------------------------------------------

    def _follow(self, reference: Reference) -> None:
        self._reference, self._relative = reference, reference.relative
        self._covers = None if reference.keyframe is None else Coverage(reference.keyframe)
        if reference.grey is not None and reference.tracks is not None:
            self._points = self._good = (reference.grey, reference.tracks)
            self._own = reference.own

    def _corrected(self, reference: Reference) -> None:
        """The same keyframe, elsewhere or of another size."""
        before, self._reference = self._reference, reference
        self._covers = None if reference.keyframe is None else Coverage(reference.keyframe)
        if before is not None and before.index == reference.index and before.unit != reference.unit:
            ratio = reference.unit / before.unit
            self._odometry.rescaled({reference.index: ratio})
            if self._relative is not None:
                self._relative = self._relative.copy()
                self._relative[:3, 3] *= ratio

    def _stand_on_new_reference(self, newest: Newest, update: MapUpdate) -> tuple[Frame, str, TrackedPose] | None:
        """Where the newest frame is by the new reference; the odometry does not move. It, why and where, if it had no place before."""
        reference, was_lost = self._reference, self.state is TrackingState.LOST
        if reference is None or reference.keyframe is None or self._points is None:
            return None
        at_it = newest.frame.stamp == update.frame.stamp
        if self._points[0] is not newest.grey:
            self._points = newest.grey, step(*self._points, newest.grey)
        tracked = TrackedPose(reference.relative, update.inliers) if at_it and reference.relative is not None else None
        self._turning.refer_before(reference.turn)
        camera = camera_by(reference.keyframe, self._mapper.calibration.camera(newest.frame))
        camera = camera.resized(newest.camera.width, newest.camera.height)  # the map may know it better by now
        tracked = tracked or self._pose_of(self._points[1], camera, newest.frame.stamp)
        if tracked is None:
            self.state = TrackingState.LOST
            self._recovery.lost(newest.frame.stamp)
            return None
        self._turning.refer_to(newest.frame.stamp, tracked.pose, reference.turn)
        self._odometry.found_again(reference.index, tracked.pose, {reference.index: reference.keyframe.pose})
        self._relative, self._good = tracked.pose, self._points
        self._see(newest.frame.stamp)
        if newest.has_pose:
            return None
        if not at_it:  # else the Mapper knows it
            self._pass(newest.frame.stamp, tracked.pose, self._points[1], camera)
        self._newest = Newest(newest.frame, camera, newest.grey, True)
        self._found_again = was_lost
        return newest.frame, update.reason, tracked

    # ---- the mapping thread ------------------------------------------------------------------------------------------------------------

    def configure(self, config: MapperConfig) -> None:
        """The Mapper has new settings."""
        self._selector.config = config.keyframes

    def hand_in(self) -> None:
        """Tell the Mapper of the frames that were tracked since, as before its trajectory is asked for."""
        while self._passed:
            stamp, keyframe, own, used = self._passed.popleft()
            self._mapper.following.trajectory.append(stamp, keyframe, own)
            if used is not None:
                self._mapper.following.remember(used)

    def refresh(self) -> None:
        """The map has been corrected, or may have to be: tracking goes on with the reference as it is now."""
        corrected = self._mapper.take_corrections()
        self._publish(self._current(self._points_of_mapper()), None)
        if corrected:
            self._on_mapped(None)

    def _map(self, frame: Frame, followed: Followed) -> None:
        self.hand_in()
        before = followed.tracks if followed.tracks is not None else self._points_of_mapper()
        update = None
        try:
            update = self._mapper.add(frame, followed)
            corrected = self._mapper.take_corrections() or update.corrected
            update = replace(update, corrected=corrected)
            self._reason = update.reason.partition(": ")[2] if update.state is TrackingState.LOST else ""
        finally:
            self._publish(self._current(before), update)
        self._on_mapped(update)

    def _points_of_mapper(self) -> Tracks | None:
        now = self._mapper.following.tracker.now
        return None if now is None else now[1]

    def _current(self, before: Tracks | None) -> Reference | None:
        following = self._mapper.following
        return reference_of(following, 1.0 if following.reference is None else self._mapper.unit(following.reference), before)

    def _publish(self, reference: Reference | None, update: MapUpdate | None) -> None:
        """For the tracking thread, once the points have been followed through the images that came meanwhile."""
        while True:
            with self._lock:
                newer = self._since
                if not newer or reference is None or reference.grey is None or reference.tracks is None:
                    self._result = _together(self._result, Mapped(reference, update))
                    self._since = None
                    return
                self._since = []
            grey, tracks = caught_up(reference.grey, reference.tracks, newer)
            reference = replace(reference, grey=grey, tracks=tracks)


def _together(earlier: Mapped | None, later: Mapped) -> Mapped:
    """What has not been taken over yet, as the map has it now."""
    if earlier is None or earlier.reference is None or later.reference is None or later.reference.tracks is not None:
        return later
    if earlier.reference.index != later.reference.index or earlier.reference.relative is None:
        return later
    relative = earlier.reference.relative.copy()
    relative[:3, 3] *= later.reference.unit / earlier.reference.unit
    reference = replace(
        later.reference, grey=earlier.reference.grey, tracks=earlier.reference.tracks, relative=relative, own=earlier.reference.own
    )
    return Mapped(reference, later.update or earlier.update)
