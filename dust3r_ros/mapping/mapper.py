"""The heart: frames in, a map out. `Mapper.add(frame) -> MapUpdate`; knows nothing of ROS, files or screens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Estimator, Tokens, create_estimator
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import ConfigError, MapperConfig
from dust3r_ros.mapping.every_frame import EveryFrame, runs_offline
from dust3r_ros.mapping.followed import Followed
from dust3r_ros.mapping.following import Following, Pending
from dust3r_ros.mapping.keyframes.keyframe_map import Growth, KeyframeMap
from dust3r_ros.mapping.keyframes.self_calibration import SelfCalibration
from dust3r_ros.mapping.lost_camera import LostCamera
from dust3r_ros.mapping.map_pieces import MapPieces
from dust3r_ros.mapping.map_view import MapView
from dust3r_ros.mapping.places.relocalisation import Relocalisation
from dust3r_ros.mapping.scale.measured import Measured
from dust3r_ros.mapping.scale.scale_estimator import ScaleEstimator
from dust3r_ros.mapping.scale.scale_fusion import MapScale
from dust3r_ros.mapping.shown import Shown, shown
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.frame_check import FrameError, StampError, check_frame
from dust3r_ros.mapping.tracking.keyframe_selection import KeyframeSelector
from dust3r_ros.mapping.tracking.tracker import TrackedPose, Tracks, tracking_image
from dust3r_ros.mapping.types import Frame, Keyframe, MapSnapshot, MapUpdate, TrackingState

SECONDS_BETWEEN_TRIES = 0.5
MAX_PENDING = 100  # frames before the first map that get their pose afterwards

Pose = NDArray[np.float64]


def configured_estimator(config: MapperConfig) -> Estimator:
    chosen = config.estimator
    return create_estimator(chosen.model, chosen.size, chosen.weights, chosen.device, chosen.precision, chosen.compile)


__all__ = ["FrameError", "Mapper", "StampError", "configured_estimator"]


class Mapper(MapView, Measured):
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
        self._pairs_offline = pieces and runs_offline(self.config.estimator.every_frame, self.estimator)
        self.reset()

    def reset(self) -> None:
        """Forget the map and start anew with the next frame."""
        self._scale.restart()
        self.calibration.restart()
        self._every_frame = EveryFrame(self.estimator, self.calibration)
        self._take(self._new_map())

    def _new_map(self) -> KeyframeMap:
        return KeyframeMap(self.config, self.estimator, self._background)

    def _take(self, keyframe_map: KeyframeMap) -> None:
        """Go on with this map, and no camera in it yet."""
        self.state = TrackingState.INITIALISING
        self.keyframe_map, self.following = keyframe_map, self._new_following(keyframe_map)
        self.following.remembers_all = self.calibration.is_open
        self._apart = self._no_pieces()
        self._lost = self._nothing_lost()
        self._selector = KeyframeSelector(self.config.keyframes)
        self._pending: list[Pending] = []
        self._last_stamp: int | None = None
        self._last_failure: int | None = None

    def _new_following(self, keyframe_map: KeyframeMap) -> Following:
        return Following(keyframe_map)

    def _nothing_lost(self) -> LostCamera:
        return LostCamera(self.keyframe_map, self.following, self.estimator, self._apart)

    def _no_pieces(self) -> MapPieces:
        return MapPieces(self._new_piece if self._pieces else None, self.config.map)

    def _new_piece(self) -> Mapper:
        piece = Mapper(self.config, self.estimator, pieces=False)
        piece.calibration.readout = self.calibration.readout
        return piece

    def configure(self, config: MapperConfig) -> None:
        """Go on with new settings. Another estimator needs a new Mapper (ConfigError); a new voxel size re-bins the map."""
        if config.estimator != self.config.estimator:
            raise ConfigError("estimator.* cannot change while a map is being made: set it before the start")
        self.keyframe_map.configure(config)
        self._selector.config = config.keyframes
        self._scale.configure(config.scale)
        self.config = config
        self._apart.configure(config)

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
            if followed is not None:
                self._pending = list(followed.pending)
            seen = shown(frame, camera, self.following, self._lost.recovery, self._selector, self.calibration.readout, followed)
        grey, tracks, tracked, choice = seen.grey, seen.tracks, seen.tracked, seen.choice
        with_pair = self._pairs_offline if followed is None else followed.with_pair
        is_keyframe = tracked is not None and choice.is_due and self.may_try(frame.stamp)
        if with_pair and self.state is TrackingState.TRACKING and not is_keyframe:
            with stopwatch.time("pair"):
                choice, tracked = self._every_frame.look(seen, self.keyframe_map, self.following)
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
                    growth, reason = self._grow(seen, tracks, tokens, tracked, reason, stopwatch)
                    joined = 0 if growth is None else self._join_beside(growth, stopwatch)
                    reason += f"; a piece of {joined} keyframes joined" if joined else ""
                    corrected = self._after_correction() or joined > 0 or corrected
            else:
                reason = "waits: no texture to follow"
        elif tracks is not None and self.state is TrackingState.INITIALISING:
            self._pending = [*self._pending[1 - MAX_PENDING :], (frame.stamp, tracks, seen.tracked_camera)]
        return self._told(frame, reason, tracked, growth, corrected, stopwatch)

    @property
    def correction_is_ready(self) -> bool:
        """Whether `take_corrections` would bring news; for any thread while no frame is looked at."""
        return self.keyframe_map.correction_is_ready

    def take_corrections(self) -> bool:
        """An alignment of the whole graph that is done, and the scale, move the map; whether they did."""
        corrected = self.keyframe_map.finished_correction()
        corrected = self._rescale() or corrected
        self._after_correction()
        return corrected

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
        self._lost.seen(stamp)

    def go_on_by(self, found: Relocalisation, stamp: int, grey: NDArray[np.uint8], camera: Camera) -> None:
        """Somebody else has found this frame (`grey`: its tracking image) in the map: the camera goes on from there."""
        self.following.go_on_by(self.keyframe_map, found, stamp, grey, camera)
        self._is_seen(stamp)
        self._last_failure = None

    def _join_beside(self, growth: Growth, stopwatch: Stopwatch) -> int:
        if not self._apart.waiting:
            return 0
        picture = self.keyframe_map.window[growth.index].tokens  # by the camera as it is known now
        with stopwatch.time("relocalise"):
            return self._apart.join_beside(self.keyframe_map, self.following, growth.index, picture)

    # ---- keyframes -------------------------------------------------------------------------------------------------------------------

    def may_try(self, stamp: int) -> bool:
        """After a try that failed the next frames wait a little: a try costs as much as a keyframe."""
        return self._last_failure is None or (stamp - self._last_failure) * 1e-9 >= SECONDS_BETWEEN_TRIES

    def _first_keyframe(self, frame: Frame, tokens: Tokens) -> None:
        self.following.reference = self.keyframe_map.begin(frame.stamp, tokens)
        self.calibration.improved(self.keyframe_map, frame, tokens, self.following.reference, self.following.turn_at)
        self._selector.accepted(frame.stamp)

    def _grow(
        self, seen: Shown, tracks: Tracks, tokens: Tokens, tracked: TrackedPose | None, reason: str, stopwatch: Stopwatch
    ) -> tuple[Growth | None, str]:
        """Place the frame as a keyframe: what it brought, and why or why not."""
        frame, stamp, is_first = seen.frame, seen.frame.stamp, not self.keyframe_map.exists
        growth = self.keyframe_map.grow(stamp, tokens, stopwatch)
        if growth is None:
            self._last_failure = stamp
            if not self.keyframe_map.exists and tracks.overlap < self.config.keyframes.min_overlap:
                self._start_over(frame, seen.grey, tokens)
                return None, "the view changed before there was depth: starting from here"
            return None, f"{reason}; but no depth or place could be found for it"
        if is_first:
            self.following.place(self._pending, ((stamp, tracks, seen.tracked_camera), growth.index))
            self._pending = []
        anew = self.calibration.improved(self.keyframe_map, frame, tokens, growth.index, self.following.turn_at)
        if anew is not None:
            self.keyframe_map, growth = anew
            self.following.go_over_to(self.keyframe_map, self.calibration.camera(frame), self.calibration.readout)
            self._lost = self._nothing_lost()
            self._apart.know(self.calibration.readout)
            reason += "; the camera is calibrated, the map made anew"
        self.following.remembers_all = self.calibration.is_open
        self._is_keyframe(growth, stamp, seen.grey, had_pose=tracked is not None)
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

    # ---- the map ---------------------------------------------------------------------------------------------------------------------

    def align(self) -> Sequence[Keyframe]:
        """Estimate and solve the window once more, then the whole graph; the keyframes (none while there is no map)."""
        aligned = self.keyframe_map.align()
        self._after_correction()
        return aligned

    def snapshot(self) -> MapSnapshot:
        """The map as it is now, to be saved and gone on from."""
        scale, readout = self.scale, self.calibration.readout
        held, pieces = self.keyframe_map.snapshot(), self._apart.snapshots()
        return replace(held, scale_source=scale.source, scale_uncertainty=scale.uncertainty, readout=readout, pieces=pieces)

    def restore(self, snapshot: MapSnapshot) -> None:
        """Replace the map by a saved one and go on from its newest keyframe. If that fails the running map stands."""
        restored = self._new_map()
        restored.restore(snapshot)
        apart = self._no_pieces()
        apart.restore(snapshot.pieces)
        self._scale.restart()
        if snapshot.keyframes:
            self.calibration.know(snapshot.keyframes[-1].source, snapshot.readout)
        self._take(restored)
        self._apart, self._lost = apart, LostCamera(restored, self.following, self.estimator, apart)
        apart.know(self.calibration.readout)
        self._scale.resume(MapScale(snapshot.scale_source, snapshot.scale_uncertainty))
        for keyframe in snapshot.keyframes:
            self.following.trajectory.append(keyframe.stamp, keyframe.index, np.eye(4))
        if snapshot.keyframes:
            newest = snapshot.keyframes[-1]
            self.state, self.following.reference = TrackingState.LOST, newest.index
            self.following.tracker.start(tracking_image(newest.image))
