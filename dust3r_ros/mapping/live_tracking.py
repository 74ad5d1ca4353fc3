"""A pose for every frame while the map grows: tracking and mapping side by side, as in PTAM (Klein and Murray, ISMAR 2007).

Frames are tracked by the reference keyframe's points at camera rate. One that is due as a keyframe, or in which a lost camera is to be
looked for, goes to the Mapper, on a thread of its own; one at a time, and the newest when that thread is free: nothing queues. What came
of it is taken over between two frames: the points of the new reference have been followed to the newest frame by then, and the odometry
goes on from where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import MapperConfig
from dust3r_ros.mapping.every_frame import beside_cpu
from dust3r_ros.mapping.followed import Followed, Grey, Reference
from dust3r_ros.mapping.following import Pending, baseline, corrected
from dust3r_ros.mapping.handover import Handover
from dust3r_ros.mapping.live_mapping import LiveMapping, Passed
from dust3r_ros.mapping.localiser import Localiser
from dust3r_ros.mapping.mapper import MAX_PENDING, Mapper
from dust3r_ros.mapping.recovery import Recovery
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.camera_rate import step
from dust3r_ros.mapping.tracking.coverage import Coverage
from dust3r_ros.mapping.tracking.frame_check import check_frame
from dust3r_ros.mapping.tracking.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.tracking.keyframe_selection import Choice, KeyframeSelector
from dust3r_ros.mapping.tracking.pair_pace import PairPace
from dust3r_ros.mapping.tracking.remembered_frames import Remembered
from dust3r_ros.mapping.tracking.tracker import TrackedPose, Tracks, parallax, tracking_image
from dust3r_ros.mapping.tracking.turning import Turning, camera_by, pose_by
from dust3r_ros.mapping.types import Frame, Keyframe, MapUpdate, TrackingState

TO_HAND_IN = 300  # frames that wait at most: a camera that stands still makes no keyframe, with which they would go to the Mapper
BUSY = Choice(False, "the map looks at an earlier image")

Pose = NDArray[np.float64]


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
        self._mapper, self._run = mapper, run
        self._handover = Handover()
        self._mapping = LiveMapping(mapper, self._handover, on_mapped)
        self._epoch = 0
        self.restart()

    def restart(self) -> None:
        """The Mapper began anew, or has another map: forget what was followed. Neither thread may be at work here."""
        self.abandon()
        self.state = self._mapper.state
        self._selector = KeyframeSelector(self._mapper.config.keyframes)
        self._pace = PairPace(
            "never" if isinstance(self._mapper, Localiser) else self._mapper.config.estimator.every_frame,
            beside_cpu(self._mapper.estimator),
        )
        self._recovery, self._odometry = Recovery(), FrameTrajectory()
        self._reference: Reference | None = None
        self._covers: Coverage | None = None
        self._points: tuple[Grey, Tracks] | None = None
        self._good: tuple[Grey, Tracks] | None = None  # in the newest frame whose place was known
        self._relative: Pose | None = None
        self._offset: Pose | None = None  # by which pairs have corrected what the points say
        self._own: Grey | None = None  # the reference's own tracking image, where the points are as they were chosen in it
        self._turning = Turning()
        self._pending: list[Pending] = []
        self._newest: Newest | None = None
        self._last_stamp: int | None = None
        self._seen: int | None = None  # stamp of the newest frame whose place was known
        self._found_again = False
        self._mapping.restart()
        self._handover.clear()
        reference = self._mapping.reference()
        if reference is not None:
            self._follow(reference)

    def abandon(self) -> None:
        """What the map was asked for and has not begun is not done any more."""
        self._epoch += 1

    @property
    def is_idle(self) -> bool:
        """Whether the map looks at no frame, and all that it found is known here."""
        return self._handover.is_idle

    # ---- the tracking thread -----------------------------------------------------------------------------------------------------------

    def add(self, frame: Frame, tell: Callable[[MapUpdate], None] | None = None) -> MapUpdate:
        """Track a frame: its pose and odometry, and nothing of the map. Raises FrameError and StampError as the Mapper does.

        `tell` hears of it as soon as that is known; whether the map should look at the frame, and the reason, come after.
        """
        check_frame(frame, self._last_stamp)
        self._last_stamp = frame.stamp
        self._pace.frame(frame.stamp)
        self._take_over()
        stopwatch = Stopwatch()
        with stopwatch.time("track"):
            grey = tracking_image(frame.image)
            whole = camera_by(self._keyframe, self._mapper.calibration.camera(frame))
            camera = whole.resized(grey.shape[1], grey.shape[0])
            tracks = None if self._points is None else step(*self._points, grey, self._own)
            tracked = self._pose_of(tracks, camera, frame.stamp)
            if tracked is not None and tracks is not None and not self._recovery.believes(frame.stamp, tracked, tracks):
                tracked = None
            seen = self._seen
            lost = self._stand(frame.stamp, grey, tracks, tracked)
            self._newest = Newest(frame, camera, grey, tracked is not None)
        update = self._told(frame, lost, tracked, stopwatch)
        if tell is not None:
            tell(update)
        choice = self._choice(frame.stamp, grey, tracks, tracked, camera)
        if not self._ask(frame, grey, tracks, tracked, choice, seen):
            self._remember(frame.stamp, tracks, tracked, camera)
        return replace(update, reason=lost or choice.reason)

    def _choice(self, stamp: int, grey: Grey, tracks: Tracks | None, tracked: TrackedPose | None, camera: Camera) -> Choice:
        """Whether this frame is due as a keyframe; not asked while the map looks at another."""
        if self._handover.is_busy:
            self._selector.see(grey)
            return BUSY
        moved, overlap = (None, 0.0) if tracks is None else (parallax(tracks, camera), tracks.overlap)
        new = 0.0 if self._covers is None or tracked is None else self._covers.new_share(camera, tracked.pose)
        return self._selector.choose(stamp, grey, moved, overlap, self._baseline(tracked), new)

    def take_over(self) -> MapUpdate | None:
        """What the map has found since, as `add` does: the newest frame's pose, if that was not known before."""
        found = self._take_over()
        return None if found is None else self._told(*found, Stopwatch())

    def _take_over(self) -> tuple[Frame, str, TrackedPose] | None:
        mapped = self._handover.take()
        if mapped is None:
            return None
        if mapped.update is not None and "pair" in mapped.update.seconds:
            self._pace.took(sum(mapped.update.seconds.values()))
        if mapped.reference is None:
            self._reference = self._points = None
            return None
        if mapped.reference.tracks is None:
            self._corrected(mapped.reference)
            return None
        goes_on = self._keyframe is not None and mapped.reference.keyframe is not None and self._keyframe.index == mapped.reference.index
        self._follow(mapped.reference)
        if mapped.update is None:
            return None
        if not goes_on or mapped.update.found_again:  # else a pair has found the points of the same keyframe again
            self._selector.accepted(mapped.update.frame.stamp)
        self._pending = []
        return None if self._newest is None else self._stand_on_new_reference(self._newest, mapped.update)

    def _stand(self, stamp: int, grey: Grey, tracks: Tracks | None, tracked: TrackedPose | None) -> str:
        """The newest frame is there, or its place, which was, is not known: since when and why. Else nothing is said."""
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
            return f"lost for {self._recovery.seconds(stamp):.1f} s: {self._mapping.reason or 'looked for in the map'}"
        return ""

    def _see(self, stamp: int) -> None:
        self.state, self._seen = TrackingState.TRACKING, stamp
        self._recovery.seen(stamp)

    def _ask(self, frame: Frame, grey: Grey, tracks: Tracks | None, tracked: TrackedPose | None, choice: Choice, seen: int | None) -> bool:
        """Have the map look at this frame, if there is something to be found and it is free; whether it does."""
        if not self._handover.is_free(grey):
            return False
        is_lost = self.state is TrackingState.LOST
        is_due = choice.is_due and self._mapper.may_try(frame.stamp)
        with_pair = self.state is not TrackingState.INITIALISING and not (is_due and not is_lost) and self._pace.is_wanted()
        if not is_lost and not is_due and not with_pair:
            if self._mapper.correction_is_ready:
                self._have_done(self._mapping.take_correction)
            elif self._mapping.waiting and self._mapping.waiting % TO_HAND_IN == 0:
                self._run(self._unless_gone(self._mapping.hand_in))
            return False
        relative = None if tracked is None else tracked.pose
        # `add` has put this frame's pose there; the Mapper finds it again from those before it.
        recent = tuple(entry for entry in self._turning.recent if entry[0] < frame.stamp)
        followed = Followed(grey, None if is_lost else tracks, relative, choice, seen, tuple(self._pending), recent, with_pair)
        self._have_done(lambda: self._mapping.look(frame, followed))
        return True

    def _have_done(self, job: Callable[[], None]) -> None:
        """On the mapping thread, unless what it is about has gone by then."""
        self._handover.begin()
        self._run(self._unless_gone(job))

    def _unless_gone(self, job: Callable[[], None]) -> Callable[[], None]:
        epoch = self._epoch
        return lambda: job() if epoch == self._epoch else None

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
        found = pose_by(tracks, self._keyframe, camera, self._relative, stamp, self._turning, self._mapper.calibration.readout)
        return corrected(found, self._offset)

    def _baseline(self, tracked: TrackedPose | None) -> float | None:
        return None if self._keyframe is None else baseline(self._keyframe, tracked)

    def _pass(self, stamp: int, relative: Pose, tracks: Tracks | None, camera: Camera) -> None:
        """To be told to the Mapper."""
        assert self._reference is not None
        own = relative.copy()
        own[:3, 3] /= self._reference.unit
        at, turning = self._reference.index, self._turning
        offset = None
        if self._offset is not None:
            offset = self._offset.copy()
            offset[:3, 3] /= self._reference.unit
        used = None if tracks is None else Remembered(stamp, at, tracks, camera, turning.newest, turning.reference, own, offset)
        self._mapping.passed.append(Passed(stamp, own, self._reference, used))

    # ---- a reference that is new, or has moved -----------------------------------------------------------------------------------------

    def _follow(self, reference: Reference) -> None:
        self._reference, self._relative, self._offset = reference, reference.relative, reference.offset
        self._covers = None if reference.keyframe is None else Coverage(reference.keyframe)
        if reference.grey is not None and reference.tracks is not None:
            self._points = self._good = (reference.grey, reference.tracks)
            self._own = reference.own

    def _corrected(self, reference: Reference) -> None:
        """The same keyframe, elsewhere or of another size, with other depth, or with other corrections of what its points say."""
        before, self._reference, self._offset = self._reference, reference, reference.offset
        self._covers = None if reference.keyframe is None else Coverage(reference.keyframe)
        if before is not None and before.index == reference.index and before.unit != reference.unit:
            ratio = reference.unit / before.unit
            self._odometry.rescaled({reference.index: ratio})
            if self._relative is not None:
                self._relative = self._relative.copy()
                self._relative[:3, 3] *= ratio
        if before is not None and before.offset is not reference.offset and self._newest is not None and self._newest.has_pose:
            self._stand_corrected(self._newest, reference)

    def _stand_corrected(self, newest: Newest, reference: Reference) -> None:
        """A pair has refined what the newest frame is followed by: it is elsewhere then, and the odometry is not."""
        tracked = self._pose_of(None if self._points is None else self._points[1], newest.camera, newest.frame.stamp)
        if tracked is not None:
            self._relative = tracked.pose
            self._odometry.anchor(reference.index, tracked.pose)

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
        self._mapping.hand_in()

    def refresh(self) -> None:
        """Somebody else has corrected the map: tracking goes on with the reference as it is now."""
        self._mapping.refresh()
