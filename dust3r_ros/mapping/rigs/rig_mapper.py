"""Several cameras on one body: sets of frames in, one pose and one map out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from numpy.typing import ArrayLike

from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import Estimator
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import MapperConfig
from dust3r_ros.mapping.followed import Followed
from dust3r_ros.mapping.keyframes.keyframe_map import KeyframeMap
from dust3r_ros.mapping.mapper import MAX_PENDING, Mapper
from dust3r_ros.mapping.rigs.rig import FrameSet, Rig, RigError
from dust3r_ros.mapping.rigs.rig_following import Look, RigFollowing
from dust3r_ros.mapping.rigs.rig_growth import RigGrowth, SetGrowth
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.frame_check import StampError, check_frame
from dust3r_ros.mapping.tracking.keyframe_selection import Choice
from dust3r_ros.mapping.tracking.tracker import MIN_POINTS, TrackedPose, Tracks, corner_count, parallax, tracking_image
from dust3r_ros.mapping.types import Frame, MapSnapshot, MapUpdate, TrackingState

log = logging.getLogger(__name__)

CAMERAS_SEARCHED = 2  # a set, while the rig is lost


class RigMapper(Mapper):
    """`add` takes sets. Poses and odometry are those of the leading camera (`lead`): the first of the rig that saw something to begin with.

    With a rig of one camera it does what a Mapper does. While lost, nothing is mapped apart.
    """

    following: RigFollowing

    def __init__(self, rig: Rig, config: MapperConfig | None = None, estimator: Estimator | None = None, background: bool = False) -> None:
        """`rig`: the cameras whose place on the body is known; `mount` adds others when theirs is. Else as for a Mapper."""
        self.rig = rig
        super().__init__(config, estimator, background, pieces=False)

    @property
    def lead(self) -> str:
        """Name of the camera whose poses these are; empty before the first set."""
        return self.following.lead

    def mount(self, name: str, pose: ArrayLike) -> None:
        """A camera's place on the body [4, 4] is known, in metres, or is known anew. Raises RigError for what is no pose."""
        self.rig = self.following.rig = self.rig.with_camera(name, pose)
        self.keyframe_map.cameras = len(self.rig)

    def restore(self, snapshot: MapSnapshot) -> None:
        lead = self.lead
        super().restore(snapshot)
        self.following.lead = lead if lead in self.rig else next(iter(self.rig.names), "")
        self.following.mounted = self.scale.is_metric

    def add(self, frame: Frame | FrameSet, followed: Followed | None = None) -> MapUpdate:
        """Follow a set of frames and, if it is due, let the map grow by a keyframe of each camera. A rig tracks by itself: no `followed`.

        A frame that cannot be used, or of a camera without a place on the rig, is left out and said. Raises StampError for a set that
        is not newer than the last one, RigError if nothing of it can be used; the map stands either way.
        """
        if followed is not None:
            raise RigError("a rig's frames cannot be followed elsewhere: give them to the RigMapper as they come")
        stamp, frames = self._usable(frame)
        self._last_stamp = stamp
        corrected = self.take_corrections()
        if not self.lead and self.keyframe_map.exists:  # a map that was loaded
            self.following.lead = next(iter(frames))
        stopwatch = Stopwatch()
        with stopwatch.time("track"):
            looks = {name: self._look(one) for name, one in frames.items()}
            tracks = self.following.track(looks)
            tracked = self._pose(stamp, tracks, looks)
            eye, choice = self._choice(stamp, tracks, looks, tracked)
        if tracked is None and self.keyframe_map.exists:
            return self._look_for_set(stamp, looks, eye, stopwatch, corrected)
        if tracked is not None:
            self._is_seen(stamp)
            self.following.advance(stamp, tracked)
        grown, reason = None, choice.reason
        if choice.is_due and self.may_try(stamp):
            if self.following.tracker.running:
                grown, reason = self._grow_set(stamp, looks, tracks, tracked, reason, stopwatch)
                corrected = self._after_correction() or corrected
            else:
                reason = self._begin(stamp, looks, stopwatch)
        elif self.lead in tracks and self.state is TrackingState.INITIALISING:
            self._pending = [*self._pending[1 - MAX_PENDING :], (stamp, tracks[self.lead], looks[self.lead].tracked_camera)]
        if grown is None and tracked is not None:
            pose = self.following.pose_in_map(tracked)
            assert pose is not None
            self.following.look_again(looks, tracks, pose)
        return self._told_set(stamp, looks, eye, reason, tracked, grown, corrected, stopwatch)

    # ---- how -------------------------------------------------------------------------------------------------------------------------

    def _take(self, keyframe_map: KeyframeMap) -> None:
        super()._take(keyframe_map)
        self._growth = RigGrowth(keyframe_map, self.following, self.estimator, self._scale)
        self._eye = ""  # the camera that says whether a set is due

    def _new_map(self) -> KeyframeMap:
        new = super()._new_map()
        new.cameras = max(1, len(self.rig))
        return new

    def _new_following(self, keyframe_map: KeyframeMap) -> RigFollowing:
        return RigFollowing(keyframe_map, self.rig)

    def _rescale(self) -> bool:
        rescaled = super()._rescale()
        self.following.mounted = self.following.mounted or rescaled
        return rescaled

    def _usable(self, given: Frame | FrameSet) -> tuple[int, dict[str, Frame]]:
        if isinstance(given, Frame):
            if len(self.rig) != 1:
                raise RigError(f"a frame without its camera's name for a rig of {len(self.rig)}: give a FrameSet")
            given = FrameSet(given.stamp, {self.rig.names[0]: given})
        if self._last_stamp is not None and given.stamp <= self._last_stamp:
            ago = (self._last_stamp - given.stamp) * 1e-9
            raise StampError(
                f"set {given.stamp * 1e-9:.3f} s is {ago:.3f} s before the last one: they must be in order; reset() starts anew"
            )
        usable: dict[str, Frame] = {}
        problems: list[str] = []
        for name, frame in given.frames.items():
            try:
                self.rig.pose(name)
                check_frame(frame, None)
                usable[name] = frame
            except RigError as error:
                problems.append(str(error))
            except Dust3rError as error:
                problems.append(f"camera {name}: {error}")
        if not usable:
            raise RigError(f"nothing of the set can be used: {'; '.join(problems) or 'it is empty'}")
        for problem in problems:
            log.warning("left out of the set: %s", problem)
        return given.stamp, {name: usable[name] for name in self.rig.names if name in usable}

    def _look(self, frame: Frame) -> Look:
        height, width = frame.image.shape[:2]
        camera = frame.camera or Camera.from_fov(width, height, self.config.estimator.assumed_fov)
        grey = tracking_image(frame.image)
        return Look(frame, camera, grey, camera.resized(grey.shape[1], grey.shape[0]))

    def _pose(self, stamp: int, tracks: Mapping[str, Tracks], looks: Mapping[str, Look]) -> TrackedPose | None:
        tracked = self.following.rig_pose(tracks, looks)
        if tracked is not None:
            most = max((tracks[name] for name in self.following.agreeing), key=len)
            if not self._lost.recovery.believes(stamp, tracked, most):
                return None
        return tracked

    def _choice(
        self, stamp: int, tracks: Mapping[str, Tracks], looks: Mapping[str, Look], tracked: TrackedPose | None
    ) -> tuple[str, Choice]:
        """The camera by which it is told whether a set is due, and whether it is: what any camera needs, of those that see."""
        following = self.following
        if following.lead and following.lead in tracks and not self.keyframe_map.exists:
            seeing = [following.lead]
        else:
            seeing = [name for name in tracks if len(tracks[name]) >= MIN_POINTS and (following.mounted or name == following.lead)]
        eye = seeing[0] if seeing else next(iter(looks))
        if eye != self._eye:
            self._eye = eye
            self._selector.other_camera()
        if not following.tracker.running and not self.keyframe_map.exists:
            return eye, self._selector.choose(stamp, looks[eye].grey, None, 0.0, None)
        moved = max((parallax(tracks[name], looks[name].tracked_camera) for name in seeing), default=0.0)
        overlap = min((tracks[name].overlap for name in seeing), default=0.0)
        return eye, self._selector.choose(stamp, looks[eye].grey, moved, overlap, following.baseline(tracked))

    def _begin(self, stamp: int, looks: Mapping[str, Look], stopwatch: Stopwatch) -> str:
        """The first keyframe: of the first camera that sees something to follow."""
        for name, look in looks.items():
            if self.following.begin(name, look):
                with stopwatch.time("encode"):
                    tokens = self.estimator.encode(look.frame.image, look.camera)
                self.following.reference = self.following.eye(name).reference = self.keyframe_map.begin(stamp, tokens, name)
                self._selector.accepted(stamp)
                return "first frame"
        return "waits: no texture to follow"

    def _begin_anew(self, stamp: int, looks: Mapping[str, Look], stopwatch: Stopwatch) -> str:
        self.reset()
        self._last_stamp = stamp
        return self._begin(stamp, looks, stopwatch)

    def _grow_set(
        self,
        stamp: int,
        looks: Mapping[str, Look],
        tracks: Mapping[str, Tracks],
        tracked: TrackedPose | None,
        reason: str,
        stopwatch: Stopwatch,
    ) -> tuple[SetGrowth | None, str]:
        """A keyframe of each camera that sees something: what they brought, and why or why not."""
        is_first = not self.keyframe_map.exists
        pilot = self._growth.pilot(looks, tracks)
        if pilot is None and is_first:  # the leader has stopped before there was a map
            return None, self._begin_anew(stamp, looks, stopwatch)
        if pilot is None:
            return None, f"{reason}; but no camera sees anything"
        grown = self._growth.grow(pilot, looks, tracks, tracked, stopwatch)
        if grown is None:
            self._last_failure = stamp
            if is_first and tracks[pilot].overlap < self.config.keyframes.min_overlap:
                self._begin_anew(stamp, looks, stopwatch)
                return None, "the view changed before there was depth: starting from here"
            return None, f"{reason}; but no depth or place could be found for it"
        if is_first:
            self.following.place(self._pending)
            self._pending = []
        self.following.refer_to_set(stamp, pilot, grown.keyframes, looks, had_pose=tracked is not None)
        of_leader = [keyframe for keyframe in grown.growth.revised if keyframe.name in ("", self.lead)]
        self._scale.observe(of_leader, grown.growth.predictions, self.keyframe_map.poses, self.keyframe_map.units)
        self._is_seen(stamp)
        self._last_failure = None
        self._selector.accepted(stamp)
        return grown, reason

    def _look_for_set(self, stamp: int, looks: Mapping[str, Look], eye: str, stopwatch: Stopwatch, corrected: bool) -> MapUpdate:
        """A set that could not be placed: each camera's picture is looked for in the whole map, the fullest first."""
        self.state = TrackingState.LOST
        self.following.hold(looks)
        recovery = self._lost.recovery
        recovery.lost(stamp)
        reason, tracked = "waits to search again", None
        if recovery.may_search(stamp):
            able = [name for name in looks if self.following.mounted or name == self.lead]
            able.sort(key=lambda name: -corner_count(looks[name].grey))
            for name in able[:CAMERAS_SEARCHED]:
                tokens = self._growth.encoded(looks[name], stopwatch)
                with stopwatch.time("relocalise"):
                    found = recovery.search(self.keyframe_map, tokens, stamp)
                    if found.where.pose is not None:
                        pose = found.where.pose @ self.rig.between(self.lead, name)
                        relative = self.following.found_at(self.keyframe_map.go_on_from(found), pose, stamp, looks)
                        tracked = TrackedPose(relative, found.where.inliers)
                reason = f"camera {name}: {found.where.reason}"
                if tracked is not None:
                    break
        if tracked is None:
            reason = f"lost for {recovery.seconds(stamp):.1f} s: {reason}"
        else:
            self._is_seen(stamp)
            self._last_failure, reason = None, f"found again by {reason}"
        return self._told_set(stamp, looks, eye, reason, tracked, None, corrected, stopwatch, tracked is not None)

    def _told_set(
        self,
        stamp: int,
        looks: Mapping[str, Look],
        eye: str,
        reason: str,
        tracked: TrackedPose | None,
        grown: SetGrowth | None,
        corrected: bool,
        stopwatch: Stopwatch,
        found_again: bool = False,
    ) -> MapUpdate:
        frame = replace(looks[self.lead if self.lead in looks else eye].frame, stamp=stamp)
        told = self._told(frame, reason, tracked, None if grown is None else grown.growth, corrected, stopwatch, found_again)
        pose = told.pose
        if grown is not None:
            assert self.following.reference is not None
            assert self.following.relative is not None
            pose = self.keyframe_map.poses[self.following.reference] @ self.following.relative
        return replace(told, pose=pose, camera=self.lead, agreeing=dict(self.following.agreeing))
