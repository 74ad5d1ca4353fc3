"""The heart: frames in, a map out. `Mapper.add(frame) -> MapUpdate`; knows nothing of ROS, files or screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.estimators import Estimator, Tokens, create_estimator
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import ConfigError, MapperConfig
from dust3r_ros.mapping.every_frame import EveryFrame, Shown, runs_offline
from dust3r_ros.mapping.followed import Followed
from dust3r_ros.mapping.following import Following, Pending
from dust3r_ros.mapping.keyframes.keyframe_map import Growth, KeyframeMap
from dust3r_ros.mapping.keyframes.self_calibration import SelfCalibration
from dust3r_ros.mapping.lost_camera import LostCamera
from dust3r_ros.mapping.points.map_tiles import MapVersion, TileChanges
from dust3r_ros.mapping.scale.scale_estimator import ScaleEstimator
from dust3r_ros.mapping.scale.scale_fusion import MapScale
from dust3r_ros.mapping.scene_graph import Pair
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.frame_check import FrameError, StampError, check_frame
from dust3r_ros.mapping.tracking.keyframe_selection import KeyframeSelector
from dust3r_ros.mapping.tracking.tracker import TrackedPose, Tracks, parallax, tracking_image
from dust3r_ros.mapping.types import Frame, Keyframe, MapSnapshot, MapUpdate, PointCloud, Standpoint, TrackingState

SECONDS_BETWEEN_TRIES = 0.5
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
        self.calibration = SelfCalibration(self.estimator, self.config.estimator, may_calibrate=pieces)
        self._every_frame = EveryFrame(self.estimator, self.calibration)
        self._pairs_offline = pieces and runs_offline(self.config.estimator.every_frame, self.estimator)
        self.reset()

    def reset(self) -> None:
        """Forget the map and start anew with the next frame."""
        self._scale.restart()
        self.calibration.restart()
        self._take(self._new_map())

    def _new_map(self) -> KeyframeMap:
        return KeyframeMap(self.config, self.estimator, self._background)

    def _take(self, keyframe_map: KeyframeMap) -> None:
        """Go on with this map, and no camera in it yet."""
        self.state = TrackingState.INITIALISING
        self.keyframe_map, self.following = keyframe_map, self._new_following(keyframe_map)
        self.following.remembers_all = self.calibration.is_open
        self._lost = self._nothing_lost()
        self._selector = KeyframeSelector(self.config.keyframes)
        self._pending: list[Pending] = []
        self._last_stamp: int | None = None
        self._last_failure: int | None = None

    def _new_following(self, keyframe_map: KeyframeMap) -> Following:
        return Following(keyframe_map)

    def _nothing_lost(self) -> LostCamera:
        new_piece = (lambda: Mapper(self.config, self.estimator, pieces=False)) if self._pieces else None
        return LostCamera(self.keyframe_map, self.following, self.estimator, new_piece)

    def configure(self, config: MapperConfig) -> None:
        """Go on with new settings. Another estimator needs a new Mapper (ConfigError); a new voxel size re-bins the map."""
        if config.estimator != self.config.estimator:
            raise ConfigError("estimator.* cannot change while a map is being made: set it before the start")
        self.keyframe_map.configure(config)
        self._selector.config = config.keyframes
        self._scale.config = config.scale
        self.config = config
        if self._lost.piece is not None:
            self._lost.piece.configure(config)

    def add(self, frame: Frame, followed: Followed | None = None) -> MapUpdate:
        """Track a frame and, if it is due as a keyframe, let the map grow by it.

        `followed`: somebody else has tracked it (`LiveTracking`), and the frames since the last one that came here.
        Raises StampError for a frame that is not newer than the last one and FrameError for an unusable image; the map stands either way.
        """
        check_frame(frame, self._last_stamp)
        self._last_stamp = frame.stamp
        corrected = self.take_corrections()
        stopwatch = Stopwatch()
        camera = self.calibration.camera(frame)
        with stopwatch.time("track"):
            grey = tracking_image(frame.image) if followed is None else followed.grey
            tracked_camera = self.following.camera(camera).resized(grey.shape[1], grey.shape[0])
            if followed is not None:
                tracks = self._take_over(followed)
            else:
                tracks = self.following.tracker.track(grey) if self.following.tracker.running else None
            tracked = self.following.pose_of(tracks, tracked_camera, frame.stamp, self.calibration.readout)
            if tracked is not None and tracks is not None and not self._lost.recovery.believes(frame.stamp, tracked, tracks):
                tracked = None
            moved, overlap = (None, 0.0) if tracks is None else (parallax(tracks, tracked_camera), tracks.overlap)
            if followed is not None:
                choice = followed.choice
            else:
                new = self.following.new_share(tracked, tracked_camera)
                choice = self._selector.choose(frame.stamp, grey, moved, overlap, self.following.baseline(tracked), new)
        if self.state is TrackingState.TRACKING and (self._pairs_offline if followed is None else followed.with_pair):
            shown = Shown(frame, camera, grey, tracked_camera, tracks)
            if tracked is None or not (choice.is_due and self.may_try(frame.stamp)):
                with stopwatch.time("pair"):
                    choice, tracked = self._every_frame.look(shown, choice, tracked, self.keyframe_map, self.following)
        if tracked is None and self.keyframe_map.exists:
            return self._look_for(frame, camera, grey, stopwatch, corrected)
        if tracked is not None:
            self._is_seen(frame.stamp)
            self.following.advance(frame.stamp, tracked)

        growth: Growth | None = None
        reason = choice.reason
        if choice.is_due and self.may_try(frame.stamp):
            if tracks is not None or self.following.start(grey):
                with stopwatch.time("encode"):
                    tokens = self.estimator.encode(self.calibration.straight(frame.image, camera, self.following.turning.newest), camera)
                if tracks is None:
                    self._first_keyframe(frame, tokens)
                else:
                    growth, reason = self._grow(frame, grey, tokens, (tracks, tracked_camera), tracked, reason, stopwatch)
                    corrected = self._after_correction() or corrected
            else:
                reason = "waits: no texture to follow"
        elif tracks is not None and self.state is TrackingState.INITIALISING:
            self._pending = [*self._pending[1 - MAX_PENDING :], (frame.stamp, tracks, tracked_camera)]
        return self._told(frame, reason, tracked, growth, corrected, stopwatch)

    def take_corrections(self) -> bool:
        """An alignment of the whole graph that is done, and the scale, move the map; whether they did."""
        corrected = self.keyframe_map.finished_correction()
        corrected = self._rescale() or corrected
        self._after_correction()
        return corrected

    def _take_over(self, followed: Followed) -> Tracks | None:
        """Go on from what was followed elsewhere."""
        self._pending = list(followed.pending)
        if followed.seen is not None:
            self._lost.recovery.seen_before(followed.seen)
        if followed.tracks is not None:
            self.following.tracker.go_on(followed.grey, followed.tracks)
            self.following.relative = followed.relative
            self.following.turning.recent = followed.recent
        return followed.tracks

    def _told(
        self,
        frame: Frame,
        reason: str,
        tracked: TrackedPose | None,
        growth: Growth | None,
        corrected: bool,
        stopwatch: Stopwatch,
        found_again: bool = False,
    ) -> MapUpdate:
        grown, trajectory = () if growth is None else growth.revised, self.following.trajectory
        return MapUpdate(
            frame,
            self.state,
            reason,
            pose=grown[-1].pose if grown else self.following.pose_in_map(tracked),
            odometry=trajectory.odometry,
            odometry_covariance=None if trajectory.odometry is None else trajectory.covariance,
            inliers=tracked.inliers if tracked is not None else 0.0,
            keyframes=grown,
            is_keyframe=bool(grown),
            corrected=corrected,
            loops=() if growth is None else growth.loops,
            edges=() if growth is None else growth.pairs,
            seconds=stopwatch.seconds,
            found_again=found_again,
            lost_seconds=self._lost.recovery.seconds(frame.stamp),
        )

    def _look_for(self, frame: Frame, camera: Camera, grey: NDArray[np.uint8], stopwatch: Stopwatch, corrected: bool) -> MapUpdate:
        """A frame that tracking could not place."""
        self.state = TrackingState.LOST
        look = self._lost.look(frame, camera, grey, stopwatch)
        if look.found:
            self._is_seen(frame.stamp)
            self._last_failure = None
        if look.growth is not None:
            self._is_keyframe(look.growth, frame.stamp, grey, had_pose=False, was_lost=True)
            corrected = self._after_correction() or corrected
        return self._told(frame, look.reason, look.tracked, look.growth, corrected or look.joined > 0, stopwatch, look.found)

    def _is_seen(self, stamp: int) -> None:
        self.state = TrackingState.TRACKING
        self._lost.recovery.seen(stamp)

    # ---- keyframes -------------------------------------------------------------------------------------------------------------------

    def may_try(self, stamp: int) -> bool:
        """After a try that failed the next frames wait a little: a try costs as much as a keyframe."""
        return self._last_failure is None or (stamp - self._last_failure) * 1e-9 >= SECONDS_BETWEEN_TRIES

    def _first_keyframe(self, frame: Frame, tokens: Tokens) -> None:
        self.following.reference = self.keyframe_map.begin(frame.stamp, tokens)
        self.calibration.improved(self.keyframe_map, frame, tokens, self.following.reference, self.following.turn_at)
        self._selector.accepted(frame.stamp)

    def _grow(
        self,
        frame: Frame,
        grey: NDArray[np.uint8],
        tokens: Tokens,
        followed: tuple[Tracks, Camera],
        tracked: TrackedPose | None,
        reason: str,
        stopwatch: Stopwatch,
    ) -> tuple[Growth | None, str]:
        """Place the frame as a keyframe: what it brought, and why or why not. `followed`: its points, and its tracking image's camera."""
        stamp, is_first = frame.stamp, not self.keyframe_map.exists
        growth = self.keyframe_map.grow(stamp, tokens, stopwatch)
        if growth is None:
            self._last_failure = stamp
            if not self.keyframe_map.exists and followed[0].overlap < self.config.keyframes.min_overlap:
                self._start_over(frame, grey, tokens)
                return None, "the view changed before there was depth: starting from here"
            return None, f"{reason}; but no depth or place could be found for it"
        if is_first:
            self.following.place(self._pending, ((stamp, *followed), growth.index))
            self._pending = []
        anew = self.calibration.improved(self.keyframe_map, frame, tokens, growth.index, self.following.turn_at)
        if anew is not None:
            self.keyframe_map, growth = anew
            self.following.go_over_to(self.keyframe_map, self.calibration.camera(frame), self.calibration.readout)
            self._lost = self._nothing_lost()
            reason += "; the camera is calibrated, the map made anew"
        self.following.remembers_all = self.calibration.is_open
        self._is_keyframe(growth, stamp, grey, had_pose=tracked is not None)
        return growth, reason

    def _is_keyframe(self, growth: Growth, stamp: int, grey: NDArray[np.uint8], had_pose: bool, was_lost: bool = False) -> None:
        """The newest frame is what the next ones are followed from."""
        before = self.following.reference
        self.following.refer_to(growth.index, stamp, grey, had_pose, was_lost)
        if before is not None:
            self.following.settle(before, self.calibration.readout)
        self._scale.observe(growth.revised, growth.predictions, self.keyframe_map.poses, self.keyframe_map.units)
        self.keyframe_map.know_lengths(self._scale.lengths)
        self._is_seen(stamp)
        self._last_failure = None
        self._selector.accepted(stamp)

    def _after_correction(self) -> bool:
        """What is remembered relative to keyframes keeps their size; whether anything had been corrected."""
        ratios = self.keyframe_map.take_ratios()
        self.following.rescaled(ratios)
        return bool(ratios)

    def _rescale(self) -> bool:
        """Bring the map to metres, or nearer to them, once its scale is known well enough; whether that was due."""
        factor = self._scale.take_factor()
        if factor is not None:
            self.keyframe_map.rescale(factor)
        return factor is not None

    def _start_over(self, frame: Frame, grey: NDArray[np.uint8], tokens: Tokens) -> None:
        self.reset()
        self._last_stamp = frame.stamp
        if self.following.start(grey):
            self._first_keyframe(frame, tokens)

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
    def keyframes(self) -> Sequence[Keyframe]:
        """All that are remembered, oldest first; those that have left the window are smaller than they were, and read when asked for."""
        return self.keyframe_map.keyframes

    @property
    def standpoints(self) -> Mapping[int, Standpoint]:
        """Of all keyframes that are remembered, by index: when and where, without the pictures, which may be on the disk."""
        return self.keyframe_map.standpoints

    def unit(self, index: int) -> float:
        """How many times its first size a keyframe with its depths has now: corrections of the whole map changed it."""
        return self.keyframe_map.units.get(index, 1.0)

    @property
    def edges(self) -> tuple[Pair, ...]:
        """Directed pairs of keyframe indices that the map was made from."""
        return self.keyframe_map.edges

    def cloud(self) -> PointCloud:
        """The whole map, one point a voxel, bounded by `map.max_points`."""
        return self.keyframe_map.cloud()

    @property
    def points(self) -> int:
        """How many points the map has."""
        return self.keyframe_map.points

    def tiles(self, since: MapVersion | None = None) -> TileChanges:
        """The map's tiles that have changed since `since`, the `version` of what was told before; None: all there are."""
        return self.keyframe_map.tiles(since)

    def trajectory(self, at_most: int | None = None) -> list[tuple[int, Pose]]:
        """[(stamp in ns, camera to world 4x4)] of the frames that have a pose, by stamp, as corrected as the map is now.

        All of them, or evenly thinned to `at_most`.
        """
        return self.following.trajectory.poses(self.keyframe_map.poses, at_most, self.keyframe_map.units)

    def align(self) -> Sequence[Keyframe]:
        """Estimate and solve the window once more, then the whole graph; the keyframes (none while there is no map)."""
        aligned = self.keyframe_map.align()
        self._after_correction()
        return aligned

    def snapshot(self) -> MapSnapshot:
        """The map as it is now, to be saved and gone on from."""
        return replace(self.keyframe_map.snapshot(), scale_source=self.scale.source, scale_uncertainty=self.scale.uncertainty)

    def restore(self, snapshot: MapSnapshot) -> None:
        """Replace the map by a saved one and go on from its newest keyframe. If that fails the running map stands."""
        restored = self._new_map()
        restored.restore(snapshot)
        self._scale.restart()
        if snapshot.keyframes:
            self.calibration.know(snapshot.keyframes[-1].source)
        self._take(restored)
        self._scale.resume(MapScale(snapshot.scale_source, snapshot.scale_uncertainty))
        for keyframe in snapshot.keyframes:
            self.following.trajectory.append(keyframe.stamp, keyframe.index, np.eye(4))
        if snapshot.keyframes:
            newest = snapshot.keyframes[-1]
            self.state, self.following.reference = TrackingState.LOST, newest.index
            self.following.tracker.start(tracking_image(newest.image))
