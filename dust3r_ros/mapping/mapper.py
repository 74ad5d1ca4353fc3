"""The heart: frames in, a map out. `Mapper.add(frame) -> MapUpdate`; knows nothing of ROS, files or screens."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.estimators import Estimator, Tokens, create_estimator
from dust3r_ros.geometry import Camera, inverse_pose
from dust3r_ros.mapping.config import ConfigError, MapperConfig
from dust3r_ros.mapping.frame_check import FrameError, StampError, check_frame
from dust3r_ros.mapping.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.keyframe_map import Growth, KeyframeMap
from dust3r_ros.mapping.keyframe_selection import KeyframeSelector
from dust3r_ros.mapping.map_piece import piece_in_map
from dust3r_ros.mapping.recovery import Recovery
from dust3r_ros.mapping.relocalisation import Relocalisation
from dust3r_ros.mapping.scale_estimator import ScaleEstimator
from dust3r_ros.mapping.scale_fusion import MapScale
from dust3r_ros.mapping.scene_graph import Pair
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracker import (
    MIN_POINTS,
    TrackedPose,
    Tracker,
    Tracks,
    frame_pose,
    parallax,
    points_seen_again,
    tracking_image,
)
from dust3r_ros.mapping.types import Frame, Keyframe, MapSnapshot, MapUpdate, PointCloud, TrackingState

SECONDS_BETWEEN_TRIES = 0.5
log = logging.getLogger(__name__)

MAX_PENDING = 100  # frames before the first map that get their pose afterwards

Pose = NDArray[np.float64]


def configured_estimator(config: MapperConfig) -> Estimator:
    chosen = config.estimator
    return create_estimator(chosen.model, chosen.size, chosen.weights, chosen.device, chosen.precision, chosen.compile)


__all__ = ["FrameError", "Mapper", "StampError", "configured_estimator"]


class Mapper:
    """Frames in, poses and a map out. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        config: MapperConfig | None = None,
        estimator: Estimator | None = None,
        background: bool = False,
        pieces: bool = True,
    ) -> None:
        """`background`: the whole graph is aligned on another thread, for a live camera; else the same frames give the same map.

        `pieces`: while the camera is lost a piece of a map grows apart, and is joined when it is known where it lies.
        """
        self.config, self._background, self._pieces = config or MapperConfig(), background, pieces
        self.estimator = estimator or configured_estimator(self.config)
        self._scale = ScaleEstimator(self.config.scale, bool(getattr(self.estimator, "metric", False)))
        self.reset()

    def reset(self) -> None:
        """Forget the map and start anew with the next frame."""
        self.state = TrackingState.INITIALISING
        self._map = KeyframeMap(self.config, self.estimator, self._background)
        self._selector = KeyframeSelector(self.config.keyframes)
        self._trajectory = FrameTrajectory()
        self._scale.restart()
        self._tracker = Tracker()
        self._reference: int | None = None  # the keyframe whose points are followed
        self._relative: Pose | None = None  # the newest frame's camera to that keyframe's
        self._pending: list[tuple[int, Tracks, Camera]] = []
        self._last_stamp: int | None = None
        self._last_failure: int | None = None
        self._recovery = Recovery()
        self._piece: Mapper | None = None  # what is mapped while the camera is lost, in a frame and on a scale of its own

    def configure(self, config: MapperConfig) -> None:
        """Go on with new settings. Another estimator needs a new Mapper (ConfigError); a new voxel size re-bins the map."""
        if config.estimator != self.config.estimator:
            raise ConfigError("estimator.* cannot change while a map is being made: set it before the start")
        self._map.configure(config)
        self._selector.config = config.keyframes
        self._scale.config = config.scale
        self.config = config
        if self._piece is not None:
            self._piece.configure(config)

    def add(self, frame: Frame) -> MapUpdate:
        """Track a frame and, if it is due as a keyframe, let the map grow by it.

        Raises StampError for a frame that is not newer than the last one and FrameError for an unusable image; the map stands either way.
        """
        check_frame(frame, self._last_stamp)
        self._last_stamp = frame.stamp
        corrected = self._map.finished_correction()
        corrected = self._rescale() or corrected
        self._after_correction()
        stopwatch = Stopwatch()
        camera = frame.camera or Camera.from_fov(frame.image.shape[1], frame.image.shape[0], self.config.estimator.assumed_fov)
        with stopwatch.time("track"):
            grey = tracking_image(frame.image)
            tracked_camera = camera.resized(grey.shape[1], grey.shape[0])
            tracks = self._tracker.track(grey) if self._tracker.running else None
            tracked = self._pose_of(frame.stamp, tracks, tracked_camera)
            moved, overlap = (None, 0.0) if tracks is None else (parallax(tracks, tracked_camera), tracks.overlap)
            choice = self._selector.choose(frame.stamp, grey, moved, overlap, self._baseline(tracked))
        if tracked is None and self._map.exists:
            return self._lost(frame, camera, grey, stopwatch, corrected)
        odometry = self._follow(frame.stamp, tracked)

        growth: Growth | None = None
        reason = choice.reason
        if choice.is_due and self._may_try(frame.stamp):
            if tracks is not None or self._start_tracking(grey):
                with stopwatch.time("encode"):
                    tokens = self.estimator.encode(frame.image, camera)
                if tracks is None:
                    self._first_keyframe(frame.stamp, tokens)
                else:
                    growth, reason = self._grow(frame.stamp, grey, tokens, tracks, tracked, reason, stopwatch)
                    odometry = self._trajectory.odometry
                    corrected = self._after_correction() or corrected
            else:
                reason = "waits: no texture to follow"
        elif tracks is not None and self.state is TrackingState.INITIALISING:
            self._pending = [*self._pending[1 - MAX_PENDING :], (frame.stamp, tracks, tracked_camera)]
        return self._told(frame, reason, tracked, odometry, growth, corrected, stopwatch)

    def _told(
        self,
        frame: Frame,
        reason: str,
        tracked: TrackedPose | None,
        odometry: Pose | None,
        growth: Growth | None,
        corrected: bool,
        stopwatch: Stopwatch,
        found_again: bool = False,
    ) -> MapUpdate:
        grown = () if growth is None else growth.revised
        return MapUpdate(
            frame,
            self.state,
            reason,
            pose=self._pose_in_map(tracked, grown),
            odometry=odometry,
            odometry_covariance=None if odometry is None else self._trajectory.covariance,
            inliers=tracked.inliers if tracked is not None else 0.0,
            keyframes=grown,
            is_keyframe=bool(grown),
            corrected=corrected,
            loops=() if growth is None else growth.loops,
            edges=() if growth is None else growth.pairs,
            seconds=stopwatch.seconds,
            found_again=found_again,
            lost_seconds=self._recovery.seconds(frame.stamp),
        )

    # ---- lost and found ----------------------------------------------------------------------------------------------------------------

    def _lost(self, frame: Frame, camera: Camera, grey: NDArray[np.uint8], stopwatch: Stopwatch, corrected: bool) -> MapUpdate:
        """A frame that tracking could not place: look for it in the whole map, and briefly beside the newest keyframes."""
        self.state = TrackingState.LOST
        self._tracker.hold()
        self._recovery.lost(frame.stamp)
        in_piece = self._map_apart(frame)
        if not self._recovery.may_search(frame.stamp):
            return self._still_lost(frame, "waits to search again", corrected, stopwatch)
        with stopwatch.time("encode"):
            tokens = self.estimator.encode(frame.image, camera)
        with stopwatch.time("relocalise"):
            found = self._recovery.search(self._map, tokens, frame.stamp)
        if found.where.pose is not None:
            with stopwatch.time("relocalise"):
                joined = self._join_piece(found, in_piece, tokens.camera)
                tracked = self._go_on_from(found, frame.stamp, grey, camera.resized(grey.shape[1], grey.shape[0]))
            reason = f"found again: {found.where.reason}" + (f"; a piece of {joined} keyframes joined" if joined else "")
            odometry = self._trajectory.odometry
            return self._told(frame, reason, tracked, odometry, None, corrected or joined > 0, stopwatch, True)
        reason = found.where.reason
        if self._recovery.may_join_newest(frame.stamp):
            growth = self._map.grow(frame.stamp, tokens, stopwatch)
            if growth is not None:
                self._is_keyframe(growth, frame.stamp, grey, placed_anew=True)
                corrected = self._after_correction() or corrected
                reason = "found again beside the newest keyframes"
                return self._told(frame, reason, None, self._trajectory.odometry, growth, corrected, stopwatch, True)
        return self._still_lost(frame, reason, corrected, stopwatch)

    def _still_lost(self, frame: Frame, why: str, corrected: bool, stopwatch: Stopwatch) -> MapUpdate:
        reason = f"lost for {self._recovery.seconds(frame.stamp):.1f} s: {why}"
        if self._piece is not None and self._piece.keyframes:
            reason += f"; a piece of {len(self._piece.keyframes)} keyframes grows apart"
        return self._told(frame, reason, None, self._trajectory.odometry, None, corrected, stopwatch)

    def _map_apart(self, frame: Frame) -> MapUpdate | None:
        """After a few seconds lost, what is seen makes a map of its own; what it says of this frame."""
        if not self._pieces or not self._recovery.is_long(frame.stamp):
            return None
        if self._piece is None:
            self._piece = Mapper(self.config, self.estimator, pieces=False)
        return self._piece.add(frame)

    def _join_piece(self, found: Relocalisation, in_piece: MapUpdate | None, camera: Camera) -> int:
        """The piece becomes part of the map, if it knows this frame too; how many keyframes came. If it does not, it is given up."""
        piece, self._piece = self._piece, None
        if piece is None or in_piece is None or in_piece.pose is None or found.where.pose is None or piece._reference is None:
            return 0
        nearest = piece._map.keyframe(piece._reference)
        shown = [keyframe for index in found.where.keyframes if (keyframe := self._map.keyframe(index)) is not None]
        place = None if nearest is None else piece_in_map(in_piece.pose, [nearest], found.where.pose, shown, camera)
        if place is None:
            log.info("a map piece of %d keyframes is given up: its scale in the map is not known", len(piece.keyframes))
            return 0
        new = self._map.take_over(piece._map, place, found.where.keyframes[0], piece._reference)
        self._trajectory.take_over(piece._trajectory, new)
        return len(new)

    def _go_on_from(self, found: Relocalisation, stamp: int, grey: NDArray[np.uint8], camera: Camera) -> TrackedPose:
        """Follow the points of the keyframe that was found; this frame's pose to it."""
        assert found.where.pose is not None
        self._reference = self._map.go_on_from(found)
        keyframe = self._map.keyframe(self._reference)
        assert keyframe is not None
        self._relative = inverse_pose(keyframe.pose) @ found.where.pose
        self._tracker.go_on(grey, points_seen_again(grey, keyframe, camera, self._relative))
        self._trajectory.append(stamp, self._reference, self._relative, self._map.units.get(self._reference, 1.0))
        self._trajectory.found_again(self._reference, self._relative, self._map.poses)
        self.state, self._last_failure = TrackingState.TRACKING, None
        self._recovery.seen(stamp)
        return TrackedPose(self._relative, found.where.inliers)

    # ---- tracking --------------------------------------------------------------------------------------------------------------------

    def _pose_of(self, stamp: int, tracks: Tracks | None, camera: Camera) -> TrackedPose | None:
        keyframe = None if self._reference is None else self._map.keyframe(self._reference)
        if tracks is None or keyframe is None:
            return None
        tracked = frame_pose(tracks, keyframe, camera, self._relative)
        return tracked if tracked is not None and self._recovery.believes(stamp, tracked, tracks) else None

    def _baseline(self, tracked: TrackedPose | None) -> float | None:
        """How far the camera is from its keyframe, as a share of the keyframe's median depth; 0 if lost, None while there is no map."""
        keyframe = None if self._reference is None else self._map.keyframe(self._reference)
        if keyframe is None:
            return None
        if tracked is None:
            return 0.0
        return float(np.linalg.norm(tracked.pose[:3, 3]) / np.median(keyframe.depth[keyframe.depth > 0]))

    def _follow(self, stamp: int, tracked: TrackedPose | None) -> Pose | None:
        """Move the odometry by this frame's motion, if it has a pose."""
        if tracked is None or self._reference is None:
            return self._trajectory.odometry
        self.state = TrackingState.TRACKING
        self._recovery.seen(stamp)
        self._relative = tracked.pose
        self._trajectory.append(stamp, self._reference, tracked.pose, self._map.units.get(self._reference, 1.0))
        return self._trajectory.advance(self._reference, tracked.pose, self._map.poses, tracked.covariance)

    def _pose_in_map(self, tracked: TrackedPose | None, grown: tuple[Keyframe, ...]) -> Pose | None:
        if grown:
            return grown[-1].pose
        if tracked is None or self._reference is None:
            return None
        return self._map.poses[self._reference] @ tracked.pose

    # ---- keyframes -------------------------------------------------------------------------------------------------------------------

    def _may_try(self, stamp: int) -> bool:
        """After a try that failed the next frames wait a little: a try costs as much as a keyframe."""
        return self._last_failure is None or (stamp - self._last_failure) * 1e-9 >= SECONDS_BETWEEN_TRIES

    def _start_tracking(self, grey: NDArray[np.uint8]) -> bool:
        """Follow this frame's points from now on; False, and nothing is followed, if it has too few."""
        if self._tracker.start(grey) >= MIN_POINTS:
            return True
        self._tracker.stop()
        return False

    def _first_keyframe(self, stamp: int, tokens: Tokens) -> None:
        self._reference = self._map.begin(stamp, tokens)
        self._selector.accepted(stamp)

    def _grow(
        self,
        stamp: int,
        grey: NDArray[np.uint8],
        tokens: Tokens,
        tracks: Tracks,
        tracked: TrackedPose | None,
        reason: str,
        stopwatch: Stopwatch,
    ) -> tuple[Growth | None, str]:
        """Place the frame as a keyframe: what it brought, and why or why not."""
        first = self._reference if not self._map.exists else None
        growth = self._map.grow(stamp, tokens, stopwatch)
        if growth is None:
            self._last_failure = stamp
            if not self._map.exists and tracks.overlap < self.config.keyframes.min_overlap:
                self._start_over(stamp, grey, tokens)
                return None, "the view changed before there was depth: starting from here"
            return None, f"{reason}; but no depth or place could be found for it"
        if first is not None:
            self._place_pending(first)
        if tracked is None:  # the first map
            self._trajectory.append(stamp, growth.index, np.eye(4))
            self._trajectory.advance(growth.index, np.eye(4), self._map.poses)
        self._is_keyframe(growth, stamp, grey)
        return growth, reason

    def _is_keyframe(self, growth: Growth, stamp: int, grey: NDArray[np.uint8], placed_anew: bool = False) -> None:
        """The newest frame is what the next ones are followed from. `placed_anew`: it was lost before."""
        if placed_anew:
            self._trajectory.append(stamp, growth.index, np.eye(4))
            self._trajectory.found_again(growth.index, np.eye(4), self._map.poses)
        self._trajectory.anchor(growth.index)
        self._scale.observe(growth.revised, growth.predictions, self._map.poses, self._map.units)
        self.state, self._last_failure = TrackingState.TRACKING, None
        self._recovery.seen(stamp)
        self._reference, self._relative = growth.index, np.eye(4)
        self._selector.accepted(stamp)
        self._tracker.start(grey)

    def _after_correction(self) -> bool:
        """What is remembered relative to keyframes keeps their size; whether anything had been corrected."""
        ratios = self._map.take_ratios()
        self._trajectory.rescaled(ratios)
        if self._relative is not None and self._reference in ratios:
            self._relative = self._relative.copy()
            self._relative[:3, 3] *= ratios[self._reference]
        return bool(ratios)

    def _rescale(self) -> bool:
        """Bring the map to metres, or nearer to them, once its scale is known well enough; whether that was due."""
        factor = self._scale.take_factor()
        if factor is not None:
            self._map.rescale(factor)
        return factor is not None

    def _start_over(self, stamp: int, grey: NDArray[np.uint8], tokens: Tokens) -> None:
        self.reset()
        self._last_stamp = stamp
        if self._start_tracking(grey):
            self._first_keyframe(stamp, tokens)

    def _place_pending(self, first: int) -> None:
        """The frames from before there was depth get their poses now, from the first keyframe's."""
        keyframe = self._map.keyframe(first)
        if keyframe is None:
            return
        self._trajectory.append(keyframe.stamp, first, np.eye(4))
        guess = np.eye(4)
        for stamp, tracks, camera in self._pending:
            found = frame_pose(tracks, keyframe, camera, guess)
            if found is not None:
                self._trajectory.append(stamp, first, found.pose, self._map.units.get(first, 1.0))
                guess = found.pose
        self._pending = []

    # ---- metric scale ----------------------------------------------------------------------------------------------------------------

    @property
    def scale(self) -> MapScale:
        """Whether a map unit is a metre, who says so, and how sure that is."""
        return self._scale.scale

    def add_odometry(self, stamp: int, pose: ArrayLike) -> None:
        """Where the camera was at `stamp` (ns) by another odometry: its pose [4, 4] in that odometry's frame, metres.

        At any rate, in order of time, before or after the images. Raises ScaleError for what is no pose.
        """
        self._scale.add_odometry(stamp, pose)

    def add_depth(self, stamp: int, depth: NDArray[np.floating]) -> None:
        """What a sensor measured at the image of `stamp` (ns): [H, W] metres along z, aligned with the image, 0 where nothing is known.

        Dense or a few pixels (`depth_of_ranges`), before or after the image. Raises DepthError for what is no such array.
        """
        self._scale.add_depth(stamp, depth)

    def set_up(self, up: ArrayLike) -> None:
        """[3] which way is up in the camera's frame, for `scale.camera_height`; without it `scale.camera_pitch` says so."""
        self._scale.set_up(up)

    # ---- the map ---------------------------------------------------------------------------------------------------------------------

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """All that are remembered, oldest first; those that have left the window are smaller than they were."""
        return self._map.keyframes

    def unit(self, index: int) -> float:
        """How many times its first size a keyframe with its depths has now: corrections of the whole map changed it."""
        return self._map.units.get(index, 1.0)

    @property
    def edges(self) -> tuple[Pair, ...]:
        """Directed pairs of keyframe indices that the map was made from."""
        return self._map.edges

    def cloud(self) -> PointCloud:
        """The whole map, one point a voxel, bounded by `map.max_points`."""
        return self._map.cloud()

    def trajectory(self, at_most: int | None = None) -> list[tuple[int, Pose]]:
        """[(stamp in ns, camera to world 4x4)] of the frames that have a pose, by stamp, as corrected as the map is now.

        All of them, or evenly thinned to `at_most`.
        """
        return self._trajectory.poses(self._map.poses, at_most, self._map.units)

    def align(self) -> tuple[Keyframe, ...]:
        """Estimate and solve the window once more, then the whole graph; the keyframes (none while there is no map)."""
        aligned = self._map.align()
        self._after_correction()
        return aligned

    def snapshot(self) -> MapSnapshot:
        """The map as it is now, to be saved and gone on from."""
        return replace(self._map.snapshot(), scale_source=self.scale.source, scale_uncertainty=self.scale.uncertainty)

    def restore(self, snapshot: MapSnapshot) -> None:
        """Replace the map by a saved one and go on from its newest keyframe. If that fails the running map stands."""
        restored = KeyframeMap(self.config, self.estimator, self._background)
        restored.restore(snapshot)
        self.reset()
        self._map = restored
        self._scale.resume(MapScale(snapshot.scale_source, snapshot.scale_uncertainty))
        for keyframe in snapshot.keyframes:
            self._trajectory.append(keyframe.stamp, keyframe.index, np.eye(4))
        if snapshot.keyframes:
            newest = snapshot.keyframes[-1]
            self.state, self._reference = TrackingState.LOST, newest.index
            self._tracker.start(tracking_image(newest.image))
