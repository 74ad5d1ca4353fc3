"""The camera between keyframes: whose points it is followed by, where its newest frame is by them, and the way that it has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, inverse_pose
from dust3r_ros.mapping.coverage import Coverage
from dust3r_ros.mapping.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.keyframe_map import KeyframeMap
from dust3r_ros.mapping.tracker import MIN_POINTS, TrackedPose, Tracker, Tracks, frame_pose, points_seen_again
from dust3r_ros.mapping.types import Keyframe

Pose = NDArray[np.float64]
Pending = tuple[int, Tracks, Camera]  # a frame from before there was depth: its stamp, points and camera


class Following:
    """One camera in one map."""

    def __init__(self, keyframe_map: KeyframeMap) -> None:
        self._map = keyframe_map
        self.tracker = Tracker()
        self.trajectory = FrameTrajectory()
        self.reference: int | None = None  # the keyframe whose points are followed
        self.relative: Pose | None = None  # [4, 4] the newest frame's camera to that keyframe's

        self._covers: tuple[Keyframe, Coverage] | None = None

    @property
    def keyframe(self) -> Keyframe | None:
        """The reference, once it has depth."""
        return None if self.reference is None else self._map.keyframe(self.reference)

    def start(self, grey: NDArray[np.uint8]) -> bool:
        """Follow this frame's points from now on; False, and nothing is followed, if it has too few."""
        if self.tracker.start(grey) >= MIN_POINTS:
            return True
        self.tracker.stop()
        return False

    def pose_of(self, tracks: Tracks | None, camera: Camera) -> TrackedPose | None:
        """The newest frame's pose by the points that are still seen. `camera` is that of the tracked image."""
        keyframe = self.keyframe
        return None if tracks is None or keyframe is None else frame_pose(tracks, keyframe, camera, self.relative)

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
        self.tracker.start(grey)

    def go_on_from(self, index: int, pose: Pose, stamp: int, grey: NDArray[np.uint8], camera: Camera) -> Pose:
        """A camera that was lost is at `pose` (4x4, camera to world): follow keyframe `index`'s points; its pose to that keyframe."""
        keyframe = self._map.keyframe(index)
        assert keyframe is not None
        relative = inverse_pose(keyframe.pose) @ pose
        self.reference = index
        self.tracker.go_on(grey, points_seen_again(grey, keyframe, camera, relative))
        self._stand(stamp, index, relative)
        self.trajectory.found_again(index, relative, self._map.poses)
        return relative

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
