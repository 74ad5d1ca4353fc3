"""The heart: frames in, a map out. `Mapper.add(frame) -> MapUpdate`; knows nothing of ROS, files or screens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import Estimator, create_estimator
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import ConfigError, MapperConfig
from dust3r_ros.mapping.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.keyframe_selection import KeyframeSelector
from dust3r_ros.mapping.keyframe_store import KeyframeStore
from dust3r_ros.mapping.keyframe_views import keyframe_cloud
from dust3r_ros.mapping.scene_graph import Pair, SceneGraph
from dust3r_ros.mapping.tracker import MIN_POINTS, TrackedPose, Tracker, Tracks, frame_pose, parallax, tracking_image
from dust3r_ros.mapping.types import Frame, Keyframe, MapSnapshot, MapUpdate, PointCloud, TrackingState
from dust3r_ros.mapping.voxel_map import VoxelMap
from dust3r_ros.mapping.window import Entry, KeyframeWindow, first_map_frame, onto_map

SECONDS_BETWEEN_TRIES = 0.5


class FrameError(Dust3rError):
    """A frame that cannot be used."""


class StampError(FrameError):
    """A frame that is not newer than the one before it."""


class Mapper:
    """Frames in, poses and a map out. Not thread-safe: one thread owns it."""

    def __init__(self, config: MapperConfig | None = None, estimator: Estimator | None = None) -> None:
        self.config = config or MapperConfig()
        self.estimator = estimator or create_estimator(self.config.estimator.model, self.config.estimator.size)
        self.reset()

    def reset(self) -> None:
        """Forget the map and start anew with the next frame."""
        config = self.config
        self.state = TrackingState.INITIALISING
        self._graph = SceneGraph.parse(config.window.scene_graph)
        self._selector = KeyframeSelector(config.keyframes)
        self._window = KeyframeWindow(self.estimator)
        self._store = KeyframeStore(config.map.max_keyframes)
        self._voxels = VoxelMap(config.map.voxel_size, config.map.max_points)
        self._trajectory = FrameTrajectory()
        self._tracker = Tracker()
        self._edges: list[Pair] = []
        self._pending: list[tuple[int, Tracks, Camera]] = []  # frames between the first keyframe and the first map
        self._last_relative: NDArray[np.float64] | None = None
        self._last_stamp: int | None = None
        self._last_try: int | None = None
        self._reference: int | None = None  # the keyframe whose points are tracked
        self._seconds: dict[str, float] = {}

    def configure(self, config: MapperConfig) -> None:
        """Go on with new settings. Another estimator needs a new Mapper (ConfigError); a new voxel size re-bins the map."""
        if config.estimator != self.config.estimator:
            raise ConfigError("estimator.* cannot change while a map is being made: set it before the start")
        if config.map != self.config.map:
            points = self._voxels.cloud()
            self._voxels = VoxelMap(config.map.voxel_size, config.map.max_points)
            self._voxels.add(points)
            self._store.max_pictures = config.map.max_keyframes
        self._graph, self._selector.config = SceneGraph.parse(config.window.scene_graph), config.keyframes
        self.config = config

    # ---- one frame -------------------------------------------------------------------------------------------------------------------

    def add(self, frame: Frame) -> MapUpdate:
        """Track a frame and, if it is due as a keyframe, let the map grow by it.

        Raises StampError for a frame that is not newer than the last one and FrameError for an unusable image; the map stands either way.
        """
        self._check(frame)
        self._last_stamp = frame.stamp
        self._seconds = {}
        camera = frame.camera or Camera.from_fov(frame.image.shape[1], frame.image.shape[0], self.config.estimator.assumed_fov)
        with self._timed("track"):
            grey = tracking_image(frame.image)
            tracked_camera = camera.resized(grey.shape[1], grey.shape[0])
            tracks = self._tracker.track(grey) if self._tracker.running else None
            tracked = self._pose_of(tracks, tracked_camera) if tracks is not None else None
            moved = parallax(tracks, tracked_camera) if tracks is not None else None
            overlap = tracks.overlap if tracks is not None else 0.0
            choice = self._selector.choose(frame.stamp, grey, moved, overlap, self._baseline(tracked))
        odometry = self._follow(frame.stamp, tracked)
        if not choice.is_due or not self._may_try(frame.stamp):
            if tracked is None and tracks is not None:
                self._pend(frame.stamp, tracks, tracked_camera)
            return self._update(frame, choice.reason, tracked, odometry)
        if tracks is None:
            return self._first_keyframe(frame, camera, grey, choice.reason)
        return self._grow(frame, camera, grey, choice.reason, tracks, tracked, odometry)

    def _check(self, frame: Frame) -> None:
        shape = frame.image.shape
        if frame.image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < 32:
            raise FrameError(f"image of shape {shape} and type {frame.image.dtype}: give uint8 RGB of at least 32x32 pixels")
        if frame.camera is not None and (frame.camera.width, frame.camera.height) != (shape[1], shape[0]):
            size = f"{frame.camera.width}x{frame.camera.height}"
            raise FrameError(f"the camera is {size} but its image {shape[1]}x{shape[0]}: resize the camera with the image or leave it out")
        if self._last_stamp is not None and frame.stamp <= self._last_stamp:
            ago = (self._last_stamp - frame.stamp) * 1e-9
            raise StampError(
                f"stamp {frame.stamp * 1e-9:.3f} s is {ago:.3f} s before the last frame's: frames must be in order; reset() starts anew"
            )

    def _pose_of(self, tracks: Tracks, camera: Camera) -> TrackedPose | None:
        if self._reference is None or self._reference not in self._store.latest:
            return None
        return frame_pose(tracks, self._store.latest[self._reference], camera, self._last_relative)

    def _baseline(self, tracked: TrackedPose | None) -> float | None:
        """How far the camera is from its keyframe, as a share of the keyframe's median depth; 0 if lost, None while there is no map."""
        if not self._store.latest:
            return None
        if tracked is None or self._reference is None:
            return 0.0
        depth = self._store.latest[self._reference].depth
        return float(np.linalg.norm(tracked.pose[:3, 3]) / np.median(depth[depth > 0]))

    def _follow(self, stamp: int, tracked: TrackedPose | None) -> NDArray[np.float64] | None:
        """Move the odometry by this frame's motion, if it has a pose."""
        if tracked is None or self._reference is None:
            if self.state is TrackingState.TRACKING:
                self.state = TrackingState.LOST
            return self._trajectory.odometry
        self.state = TrackingState.TRACKING
        self._last_relative = tracked.pose
        self._trajectory.append(stamp, self._reference, tracked.pose)
        return self._trajectory.advance(self._reference, tracked.pose, self._store.poses)

    def _may_try(self, stamp: int) -> bool:
        """After a try that failed the next frames wait a little: a try costs as much as a keyframe."""
        return self._last_try is None or (stamp - self._last_try) * 1e-9 >= SECONDS_BETWEEN_TRIES

    def _first_keyframe(self, frame: Frame, camera: Camera, grey: NDArray[np.uint8], reason: str) -> MapUpdate:
        """The first keyframe waits for a second one: one image has no depth."""
        if self._tracker.start(grey) < MIN_POINTS:
            self._tracker.stop()
            return self._update(frame, "waits: no texture to follow", None, None)
        with self._timed("encode"):
            tokens = self.estimator.encode(frame.image, camera)
        index = self._store.next_index()
        self._window.add(index, Entry(frame.stamp, tokens))
        self._selector.accepted(frame.stamp)
        self._reference, self._last_relative = index, None
        return self._update(frame, reason, None, None)

    def _grow(
        self,
        frame: Frame,
        camera: Camera,
        grey: NDArray[np.uint8],
        reason: str,
        tracks: Tracks,
        tracked: TrackedPose | None,
        odometry: NDArray[np.float64] | None,
    ) -> MapUpdate:
        """Encode the frame once, estimate its pairs, and place it."""
        self._last_try = frame.stamp
        with self._timed("encode"):
            tokens = self.estimator.encode(frame.image, camera)
        earlier, index = self._window.indices, self._store.next_index()
        pairs = self._graph.new_pairs(earlier, index, both_directions=True)
        self._window.add(index, Entry(frame.stamp, tokens))
        with self._timed("estimate"):
            self._window.estimate(pairs)
        with self._timed("align"):
            revised = self._place(index)
        if not revised:
            self._window.remove(index)
            if self.state is TrackingState.INITIALISING and tracks.overlap < self.config.keyframes.min_overlap:
                self._start_over(frame, grey, tokens)
                return self._update(frame, "the view changed before there was depth: starting from here", None, None)
            return self._update(frame, f"{reason}; but no depth or place could be found for it", tracked, odometry)

        first_map = not self._edges
        self._edges.extend(pairs)
        self._selector.accepted(frame.stamp)
        self._last_try = None
        if first_map:
            self._place_pending(earlier[0])
        self.state = TrackingState.TRACKING
        self._trajectory.append(frame.stamp, index, np.eye(4)) if tracked is None else None
        if tracked is None:
            odometry = self._trajectory.advance(index, np.eye(4), self._store.poses)
        self._trajectory.anchor(index)
        self._reference, self._last_relative = index, np.eye(4)
        self._tracker.start(grey)
        with self._timed("fuse"):
            self._slide()
        return MapUpdate(
            frame=frame,
            state=self.state,
            reason=reason,
            pose=self._store.poses[index],
            odometry=odometry,
            inliers=tracked.inliers if tracked is not None else 0.0,
            keyframes=revised,
            is_keyframe=True,
            edges=tuple(pairs),
            seconds=self._seconds,
        )

    def _place(self, newest: int) -> tuple[Keyframe, ...]:
        """Solve the window, join it to the map and keep the result; empty if the newest keyframe found no place."""
        solution = self._window.solve()
        if newest not in solution:
            return ()
        to_map = onto_map(solution, self._store.latest) if self._store.latest else first_map_frame(solution)
        if to_map is None:
            return ()
        revised = self._window.keyframes(solution, to_map)
        for keyframe in revised:
            self._store.put(keyframe)
        return revised

    def _slide(self) -> None:
        """Let the oldest keyframes go: their points into the map for good, themselves remembered compactly."""
        while len(self._window) > self.config.window.size:
            oldest = self._window.indices[0]
            if oldest in self._store.latest:
                self._voxels.add(keyframe_cloud(self._store.latest[oldest], self.config.map.min_confidence))
                self._store.retire(oldest)
            self._window.remove(oldest)

    def _start_over(self, frame: Frame, grey: NDArray[np.uint8], tokens: object) -> None:
        self.reset()
        self._last_stamp = frame.stamp
        if self._tracker.start(grey) < MIN_POINTS:
            self._tracker.stop()
            return
        index = self._store.next_index()
        self._window.add(index, Entry(frame.stamp, tokens))  # type: ignore[arg-type]
        self._selector.accepted(frame.stamp)
        self._reference = index

    def _pend(self, stamp: int, tracks: Tracks, camera: Camera) -> None:
        if self.state is TrackingState.INITIALISING:
            self._pending = [*self._pending[-99:], (stamp, tracks, camera)]

    def _place_pending(self, first: int) -> None:
        """The frames from before there was depth get their poses now."""
        keyframe = self._store.latest[first]
        self._trajectory.append(keyframe.stamp, first, np.eye(4))
        guess: NDArray[np.float64] | None = np.eye(4)
        for stamp, tracks, camera in self._pending:
            found = frame_pose(tracks, keyframe, camera, guess)
            if found is not None:
                self._trajectory.append(stamp, first, found.pose)
                guess = found.pose
        self._pending = []

    def _update(self, frame: Frame, reason: str, tracked: TrackedPose | None, odometry: NDArray[np.float64] | None) -> MapUpdate:
        pose = self._store.poses[self._reference] @ tracked.pose if tracked is not None and self._reference is not None else None
        inliers = tracked.inliers if tracked is not None else 0.0
        return MapUpdate(frame, self.state, reason, pose, odometry, inliers, seconds=self._seconds)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start

    # ---- the map ---------------------------------------------------------------------------------------------------------------------

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """All that are remembered, oldest first; those that have left the window are smaller than they were."""
        return self._store.all()

    @property
    def edges(self) -> tuple[Pair, ...]:
        """Directed pairs of keyframe indices that the map was made from."""
        return tuple(self._edges)

    def cloud(self) -> PointCloud:
        """The whole map, one point a voxel, bounded by `map.max_points`."""
        whole = self._voxels.copy()
        for index in self._window.indices:
            if index in self._store.latest:
                whole.add(keyframe_cloud(self._store.latest[index], self.config.map.min_confidence))
        return whole.cloud()

    def trajectory(self) -> list[tuple[int, NDArray[np.float64]]]:
        """[(stamp in ns, camera to world 4x4)] of every frame that has a pose, by stamp, as corrected as the map is now."""
        return self._trajectory.poses(self._store.poses)

    def align(self) -> tuple[Keyframe, ...]:
        """Estimate and solve the window once more; the revised keyframes (none while there is no map)."""
        if not self._store.latest:
            return ()
        self._window.estimate_all(self._graph)
        return self._place(self._window.indices[-1])

    def snapshot(self) -> MapSnapshot:
        """The map as it is now, to be saved and gone on from."""
        window = tuple(index for index in self._window.indices if index in self._store.latest)
        return MapSnapshot(self._store.all(), tuple(self._edges), self._voxels.cloud(), window)

    def restore(self, snapshot: MapSnapshot) -> None:
        """Replace the map by a saved one and go on from its newest keyframe."""
        self.reset()
        for keyframe in snapshot.keyframes:
            self._store.put(keyframe)
            self._trajectory.append(keyframe.stamp, keyframe.index, np.eye(4))
            if keyframe.index in snapshot.window:
                self._window.encode(keyframe)
        self._voxels.add(snapshot.cloud)
        self._edges = list(snapshot.edges)
        if len(self._window) > 1:
            self._window.estimate_all(self._graph)
        if snapshot.keyframes:
            newest = snapshot.keyframes[-1]
            self.state = TrackingState.LOST
            self._reference, self._last_relative = newest.index, None
            self._tracker.start(tracking_image(newest.image))
