"""The camera between keyframes: whose points it is followed by, where its newest frame is by them, and the way that it has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, inverse_pose, turn_between
from dust3r_ros.mapping.keyframes.keyframe_map import KeyframeMap
from dust3r_ros.mapping.places.relocalisation import Relocalisation
from dust3r_ros.mapping.tracking.coverage import Coverage
from dust3r_ros.mapping.tracking.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.tracking.tracker import MIN_POINTS, TrackedPose, Tracker, Tracks, frame_pose, points_seen_again
from dust3r_ros.mapping.tracking.turning import TURN_AT_MOST, Turning, camera_by, pose_by, straight_tracks
from dust3r_ros.mapping.types import Keyframe

MAX_REMEMBERED = 1000  # frames whose tracks are kept while the camera may yet be calibrated

Pose = NDArray[np.float64]
Pending = tuple[int, Tracks, Camera]  # a frame from before there was depth: its stamp, points and camera


@dataclass(frozen=True, eq=False)
class Remembered:
    """What a frame's pose was computed from."""

    stamp: int
    reference: int
    tracks: Tracks
    camera: Camera  # of the tracked image
    turn: NDArray[np.float64]
    reference_turn: NDArray[np.float64]


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
        self.turning = Turning()
        self.remembers = False  # how frames were followed, to place them anew if the camera becomes known
        self._remembered: deque[Remembered] = deque(maxlen=MAX_REMEMBERED)
        self._covers: tuple[Keyframe, Coverage] | None = None

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
        found = {}
        for one in self._remembered:
            keyframe = keyframe_map.keyframe(one.reference)
            tracked = camera.resized(one.camera.width, one.camera.height)
            straight = straight_tracks(one.tracks, tracked, one.reference_turn, one.turn, readout)
            placed = None if keyframe is None else frame_pose(straight, keyframe, tracked, None)
            if placed is not None:
                found[one.stamp, one.reference] = placed.pose
        self.trajectory.revise(found, keyframe_map.units)

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
            self.remember(Remembered(stamp, keyframe.index, tracks, camera, self.turning.newest, self.turning.reference))
        return found

    def remember(self, one: Remembered) -> None:
        if self.remembers:
            self._remembered.append(one)

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

    def pose_in_map(self, tracked: TrackedPose | None) -> Pose | None:
        return None if tracked is None or self.reference is None else self._map.poses[self.reference] @ tracked.pose

    def refer_to(self, index: int, stamp: int, grey: NDArray[np.uint8], had_pose: bool, was_lost: bool) -> None:
        """The newest frame has become keyframe `index`: its points are followed from now on."""
        if not had_pose:  # the first map, or it was lost before
            self._stand(stamp, index, np.eye(4))
            go_on = self.trajectory.found_again if was_lost else self.trajectory.advance
            go_on(index, np.eye(4), self._map.poses)
        self.trajectory.anchor(index)
        self.reference, self.relative = index, np.eye(4)
        self.turning.refer_to(stamp, np.eye(4), self.turning.newest if self.turning.newest.any() else None)
        self.tracker.start(grey)

    def go_on_from(self, index: int, pose: Pose, stamp: int, grey: NDArray[np.uint8], camera: Camera) -> Pose:
        """A camera that was lost is at `pose` (4x4, camera to world): follow keyframe `index`'s points; its pose to that keyframe."""
        keyframe = self._map.keyframe(index)
        assert keyframe is not None
        relative = inverse_pose(keyframe.pose) @ pose
        self.reference = index
        self.turning.refer_to(stamp, relative, np.zeros(3))
        self.tracker.go_on(grey, points_seen_again(grey, keyframe, camera, relative))
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

    def place(self, pending: Sequence[Pending]) -> None:
        """The reference is the first keyframe and has depth now: it, and the frames since, get their poses."""
        keyframe = self.keyframe
        if keyframe is None:
            return
        self._stand(keyframe.stamp, keyframe.index, np.eye(4))
        for stamp, tracks, camera in pending:
            found = frame_pose(tracks, keyframe, camera, self.relative)
            if found is not None:
                self._stand(stamp, keyframe.index, found.pose)
                self.remember(Remembered(stamp, keyframe.index, tracks, camera, np.zeros(3), np.zeros(3)))

    def forget(self) -> None:
        """The camera is known as well as it will be: how frames were followed is not asked for any more."""
        self.remembers = False
        self._remembered.clear()

    def rescaled(self, ratios: Mapping[int, float]) -> None:
        """Keyframes have become larger by these ratios: what is remembered relative to them too."""
        self.trajectory.rescaled(ratios)
        if self.relative is not None and self.reference is not None and self.reference in ratios:
            self.relative = self.relative.copy()
            self.relative[:3, 3] *= ratios[self.reference]

    def _stand(self, stamp: int, keyframe: int, relative: Pose) -> None:
        self.relative = relative
        self.trajectory.append(stamp, keyframe, relative, self._map.units.get(keyframe, 1.0))


def baseline(keyframe: Keyframe, tracked: TrackedPose | None) -> float:
    """How far a camera is from a keyframe, as a share of the keyframe's median depth; 0 if it is lost."""
    return 0.0 if tracked is None else float(np.linalg.norm(tracked.pose[:3, 3]) / np.median(keyframe.depth[keyframe.depth > 0]))
