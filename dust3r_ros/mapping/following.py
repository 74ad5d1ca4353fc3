"""The camera between keyframes: whose points it is followed by, where its newest frame is by them, and the way that it has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, inverse_pose, turn_between
from dust3r_ros.mapping.keyframes.keyframe_map import KeyframeMap
from dust3r_ros.mapping.places.relocalisation import Relocalisation
from dust3r_ros.mapping.tracking.coverage import Coverage
from dust3r_ros.mapping.tracking.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.tracking.odometry_covariance import KEYFRAME_SCALE
from dust3r_ros.mapping.tracking.remembered_frames import Remembered, RememberedFrames
from dust3r_ros.mapping.tracking.tracker import MIN_POINTS, TrackedPose, Tracker, Tracks, frame_pose, points_seen_again
from dust3r_ros.mapping.tracking.turning import TURN_AT_MOST, Turning, camera_by, pose_by, straight_tracks
from dust3r_ros.mapping.types import Keyframe

UNKNOWN = (1.0, 1e12)  # rad^2, and any unit squared: of a pose that nothing is known of

Pose = NDArray[np.float64]
Pending = tuple[int, Tracks, Camera]  # a frame from before there was depth: its stamp, points and camera


class Keyframes(Protocol):
    """What a camera is followed from: a KeyframeMap, or frames that were placed in a map that stands."""

    @property
    def poses(self) -> Mapping[int, Pose]: ...

    @property
    def units(self) -> Mapping[int, float]: ...

    def keyframe(self, index: int) -> Keyframe | None: ...


class Following:
    """One camera in one map."""

    def __init__(self, keyframe_map: Keyframes) -> None:
        self._map = keyframe_map
        self.tracker = Tracker()
        self.trajectory = FrameTrajectory()
        self.reference: int | None = None  # the keyframe whose points are followed
        self.relative: Pose | None = None  # [4, 4] the newest frame's camera to that keyframe's
        self._variance = UNKNOWN
        self.turning = Turning()
        self.remembers_all = False  # how frames were followed, while the camera may yet be calibrated; else since the last keyframe
        self._remembered = RememberedFrames()
        self._covers: tuple[Keyframe, Coverage] | None = None
        self.offset: Pose | None = None  # [4, 4] by which pairs have corrected what the points say, in the keyframe's camera

    @property
    def keyframe(self) -> Keyframe | None:
        """The reference, once it has depth."""
        return None if self.reference is None else self._map.keyframe(self.reference)

    def camera(self, camera: Camera) -> Camera:
        """That of a frame; one that nobody measured is as the alignment has its keyframe's."""
        return camera_by(self.keyframe, camera)

    def go_over_to(self, keyframe_map: Keyframes, camera: Camera, readout: float) -> None:
        """To a map of the same keyframes made with another camera: the frames that are remembered are placed in it anew."""
        self._map = keyframe_map
        self.trajectory.revise(self._remembered.by_camera(camera, readout, keyframe_map.keyframe), keyframe_map.units)

    def settle(self, reference: int, readout: float) -> None:
        """The next keyframe is there, and may have changed the depth of the one before: the frames followed from that are placed anew."""
        found = self._remembered.by_depth(reference, readout, self._map.keyframe(reference), self._unit(reference))
        if found:
            self.trajectory.revise(found, self._map.units)
        if not self.remembers_all:
            self._remembered.forget(but=self.reference)

    def forget_frames(self) -> None:
        """By which points they were placed: they lie where they lie."""
        self._remembered.forget()

    def start(self, grey: NDArray[np.uint8]) -> bool:
        """Follow this frame's points from now on; False, and nothing is followed, if it has too few."""
        if self.tracker.start(grey) >= MIN_POINTS:
            return True
        self.tracker.stop()
        return False

    def pose_of(self, tracks: Tracks | None, camera: Camera, stamp: int, readout: float = 0.0) -> TrackedPose | None:
        """The newest frame's pose by the points that are still seen. `camera` is that of the tracked image, `readout` of its rows (s)."""
        keyframe = self.keyframe
        found = pose_by(tracks, keyframe, camera, self.relative, stamp, self.turning, readout)
        if tracks is not None and keyframe is not None and found is not None:
            turns = self.turning.newest, self.turning.reference
            own = self._in_own_unit(found.pose, keyframe.index)
            offset = None if self.offset is None else self._in_own_unit(self.offset, keyframe.index)
            self.remember(Remembered(stamp, keyframe.index, tracks, camera, *turns, own, offset), keyframe, self._unit(keyframe.index))
        return corrected(found, self.offset)

    def followed_pose(self, tracks: Tracks, camera: Camera, readout: float) -> TrackedPose | None:
        """As `pose_of`, of the same frame, with the keyframe's depth as it is now and by the points alone."""
        keyframe = self.keyframe
        straight = straight_tracks(tracks, camera, self.turning.reference, self.turning.newest, readout)
        return None if keyframe is None else frame_pose(straight, keyframe, camera, self.relative)

    def uncorrected(self, tracked: TrackedPose) -> TrackedPose:
        """The newest frame's pose by the points alone, with the keyframe's depth as it was."""
        return tracked if self.offset is None else replace(tracked, pose=inverse_pose(self.offset) @ tracked.pose)

    def correct(self, followed: Pose, pose: Pose) -> None:
        """The newest frame is at `pose` where its points say `followed` (4x4, to the keyframe): the next frames' points err alike."""
        self.offset = pose @ inverse_pose(followed)
        if self.reference is not None:
            self._remembered.correct_newest(self._in_own_unit(self.offset, self.reference))

    def follow_again(self, grey: NDArray[np.uint8], tracks: Tracks) -> None:
        """The newest frame's points were lost and are these, in its tracking image."""
        self.tracker.go_on(grey, tracks)
        self.offset = None

    def remember(self, one: Remembered, keyframe: Keyframe, unit: float) -> None:
        """How a frame was followed. `keyframe`: its reference as it was placed by, when its own unit was `unit` map units."""
        self._remembered.add(one, keyframe, unit)

    def turn_at(self, stamp: int) -> NDArray[np.float64]:
        """[3] how the camera turned when it took a frame (`geometry.rolling_shutter`), by the frames around it; zero if unknown."""
        near = self.trajectory.around(stamp, round(TURN_AT_MOST * 1e9), self._map.poses, self._map.units)
        before = [entry for entry in near if entry[0] < stamp][-1:]
        after = [entry for entry in near if entry[0] > stamp][:1]
        own = [entry for entry in near if entry[0] == stamp][-1:]
        ends = [*before, *own, *after]
        if len(ends) < 2:
            return np.zeros(3)
        return turn_between(ends[0][1], ends[-1][1], (ends[-1][0] - ends[0][0]) * 1e-9)

    def baseline(self, tracked: TrackedPose | None) -> float | None:
        """How far the camera is from its keyframe, as a share of the keyframe's median depth; 0 if lost, None while there is no map."""
        keyframe = self.keyframe
        return None if keyframe is None else baseline(keyframe, tracked)

    def new_share(self, tracked: TrackedPose | None, camera: Camera) -> float:
        """Of the picture, what its keyframe has not seen; 0 if that is not known. `camera` is that of the tracked image."""
        keyframe = self.keyframe
        if keyframe is None or tracked is None:
            return 0.0
        if self._covers is None or self._covers[0] is not keyframe:
            self._covers = keyframe, Coverage(keyframe)
        return self._covers[1].new_share(camera, tracked.pose)

    def advance(self, stamp: int, tracked: TrackedPose) -> None:
        """Move the odometry by the newest frame's motion."""
        assert self.reference is not None
        self.turning.stand(stamp, tracked.pose)
        self._stand(stamp, self.reference, tracked.pose)
        self.trajectory.advance(self.reference, tracked.pose, self._map.poses, tracked.covariance)
        self._variance = self._variance_of(tracked, self.reference)

    def pose_in_map(self, tracked: TrackedPose | None) -> Pose | None:
        return None if tracked is None or self.reference is None else self._map.poses[self.reference] @ tracked.pose

    def refer_to(self, index: int, stamp: int, grey: NDArray[np.uint8], had_pose: bool, was_lost: bool) -> None:
        """The newest frame has become keyframe `index`: its points are followed from now on."""
        if not had_pose:  # the first map, or it was lost before
            self._stand(stamp, index, np.eye(4))
            go_on = self.trajectory.found_again if was_lost else self.trajectory.advance
            go_on(index, np.eye(4), self._map.poses)
        elif self.reference is not None and self.relative is not None:
            self.trajectory.legs.end(self.reference, stamp, index, self._in_own_unit(self.relative, self.reference), self._variance)
        self.trajectory.legs.begin(index, stamp)
        self.trajectory.anchor(index)
        self.reference, self.relative, self.offset = index, np.eye(4), None
        self.turning.refer_to(stamp, np.eye(4), self.turning.newest if self.turning.newest.any() else None)
        self.tracker.start(grey)

    def go_on_from(self, index: int, pose: Pose, stamp: int, grey: NDArray[np.uint8], camera: Camera) -> Pose:
        """A camera that was lost is at `pose` (4x4, camera to world): follow keyframe `index`'s points; its pose to that keyframe."""
        keyframe = self._map.keyframe(index)
        assert keyframe is not None
        relative = inverse_pose(keyframe.pose) @ pose
        self.reference, self.offset = index, None
        self.turning.refer_to(stamp, relative, np.zeros(3))
        self.tracker.go_on(grey, points_seen_again(grey, keyframe, camera, relative))
        self.trajectory.legs.begin(index, stamp)
        self._stand(stamp, index, relative)
        self.trajectory.found_again(index, relative, self._map.poses)
        return relative

    def go_on_by(
        self, keyframe_map: KeyframeMap, found: Relocalisation, stamp: int, grey: NDArray[np.uint8], camera: Camera
    ) -> TrackedPose:
        """A camera that was lost is there, by this map's keyframes: follow the most alike of them. `camera` is that of the frame."""
        assert found.where.pose is not None
        tracked = self.camera(camera).resized(grey.shape[1], grey.shape[0])
        relative = self.go_on_from(keyframe_map.go_on_from(found), found.where.pose, stamp, grey, tracked)
        return TrackedPose(relative, found.where.inliers)

    def place(self, pending: Sequence[Pending], newest: tuple[Pending, int] | None = None) -> None:
        """The reference is the first keyframe and has depth now: it, and the frames since, get their poses.

        `newest`: the frame that is the second keyframe, and that one's index.
        """
        keyframe = self.keyframe
        if keyframe is None:
            return
        self.trajectory.legs.begin(keyframe.index, keyframe.stamp)
        self._stand(keyframe.stamp, keyframe.index, np.eye(4))
        for stamp, tracks, camera in [*pending, *([] if newest is None else [newest[0]])]:
            found = frame_pose(tracks, keyframe, camera, self.relative)
            if found is not None:
                own = self._in_own_unit(found.pose, keyframe.index)
                one = Remembered(stamp, keyframe.index, tracks, camera, np.zeros(3), np.zeros(3), own)
                self.remember(one, keyframe, self._unit(keyframe.index))
                if newest is not None and stamp == newest[0][0]:
                    self.trajectory.legs.end(keyframe.index, stamp, newest[1], own, self._variance_of(found, keyframe.index))
                else:
                    self._stand(stamp, keyframe.index, found.pose)

    def rescaled(self, ratios: Mapping[int, float]) -> None:
        """Keyframes have become larger by these ratios: what is remembered relative to them too."""
        self.trajectory.rescaled(ratios)
        if self.relative is not None and self.reference is not None and self.reference in ratios:
            self.relative = self.relative.copy()
            self.relative[:3, 3] *= ratios[self.reference]
            if self.offset is not None:
                self.offset = self.offset.copy()
                self.offset[:3, 3] *= ratios[self.reference]

    def _variance_of(self, tracked: TrackedPose, index: int) -> tuple[float, float]:
        """Of rotation and place, as `FrameLegs.end` has it."""
        if tracked.covariance is None:
            return UNKNOWN
        variance, way = np.diag(tracked.covariance), tracked.pose[:3, 3]
        return float(variance[:3].sum()), float(variance[3:].sum() + KEYFRAME_SCALE**2 * (way @ way)) / self._unit(index) ** 2

    def _unit(self, index: int) -> float:
        return self._map.units.get(index, 1.0)

    def _in_own_unit(self, pose: Pose, index: int) -> Pose:
        own = pose.copy()
        own[:3, 3] /= self._unit(index)
        return own

    def _stand(self, stamp: int, keyframe: int, relative: Pose) -> None:
        self.relative = relative
        self.trajectory.append(stamp, keyframe, relative, self._map.units.get(keyframe, 1.0))


def corrected(tracked: TrackedPose | None, offset: Pose | None) -> TrackedPose | None:
    """A pose by points that were followed, as pairs have corrected it."""
    return tracked if tracked is None or offset is None else replace(tracked, pose=offset @ tracked.pose)


def baseline(keyframe: Keyframe, tracked: TrackedPose | None) -> float:
    """How far a camera is from a keyframe, as a share of the keyframe's median depth; 0 if it is lost."""
    return 0.0 if tracked is None else float(np.linalg.norm(tracked.pose[:3, 3]) / keyframe.median_depth)
