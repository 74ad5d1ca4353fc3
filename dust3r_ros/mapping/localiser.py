"""Localisation alone: a camera's pose for every frame, in a map that stands as it was saved. Has the Mapper's methods and takes its place.

A frame is placed by keyframes of the map (`placing`), which gives it depth too; its points are then followed from frame to frame as those
of a keyframe are when mapping, until the next frame is due to be placed. Drift ends at every placing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.mapping.config import ConfigError, MapperConfig
from dust3r_ros.mapping.followed import Followed
from dust3r_ros.mapping.following import Following
from dust3r_ros.mapping.keyframes.self_calibration import SelfCalibration
from dust3r_ros.mapping.loaded_map import EMPTY, LoadedMap
from dust3r_ros.mapping.mapper import SECONDS_BETWEEN_TRIES, configured_estimator
from dust3r_ros.mapping.placed_frames import PlacedFrames
from dust3r_ros.mapping.places.localisation import Localisation, LocalisationError
from dust3r_ros.mapping.places.placing import nowhere, same_pose
from dust3r_ros.mapping.places.relocalisation import undecided
from dust3r_ros.mapping.points.map_tiles import MapVersion, TileChanges
from dust3r_ros.mapping.recovery import SECONDS_BETWEEN_SEARCHES, Recovery
from dust3r_ros.mapping.scale.measured import Measured
from dust3r_ros.mapping.scale.scale_estimator import ScaleEstimator
from dust3r_ros.mapping.shown import shown
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.frame_check import check_frame
from dust3r_ros.mapping.tracking.keyframe_selection import KeyframeSelector
from dust3r_ros.mapping.tracking.tracker import TrackedPose
from dust3r_ros.mapping.types import Frame, Keyframe, MapSnapshot, MapUpdate, PointCloud, Standpoint, TrackingState

CONTRADICTIONS = 3  # placings in a row that tell of another place than tracking before they are believed
NO_MAP = "there is no map to localise in: load one (~/load_map, map_file, --map)"

Pose = NDArray[np.float64]


class Localiser(Measured):
    """Frames in, poses in a given map out. Not thread-safe: one thread owns it.

    What measures metres makes a map metric that was saved without a scale; one that has a scale keeps it.
    """

    def __init__(self, config: MapperConfig | None = None, estimator: Estimator | None = None, snapshot: MapSnapshot | None = None) -> None:
        self.config = config or MapperConfig()
        self.estimator = estimator or configured_estimator(self.config)
        self._scale = ScaleEstimator(self.config.scale)
        self._map = LoadedMap(EMPTY, self.estimator, self.config.map)
        self.calibration = SelfCalibration(self.estimator, self.config.estimator, may_calibrate=False)
        self.reset()
        if snapshot is not None:
            self.restore(snapshot)

    def restore(self, snapshot: MapSnapshot) -> None:
        """Localise in this map from now on. LocalisationError for one without keyframes; what was there before stands then."""
        if not snapshot.keyframes:
            raise LocalisationError("localisation in a map without keyframes: save the map after its second keyframe")
        self._map = LoadedMap(snapshot, self.estimator, self.config.map)
        self.calibration = SelfCalibration(self.estimator, self.config.estimator, may_calibrate=False)
        self.calibration.know(snapshot.keyframes[-1].source, snapshot.readout)
        self._scale = ScaleEstimator(self.config.scale)
        self._scale.resume(self._map.saved_scale)
        self.reset()

    def reset(self) -> None:
        """Forget where the camera is. The map stands, and its scale."""
        scale = self.scale
        self._scale.restart()
        self._scale.resume(scale)
        self.state = TrackingState.INITIALISING if self._map.finder is None else TrackingState.LOST
        self._selector = KeyframeSelector(self.config.keyframes)
        self._placed = PlacedFrames()
        self.following, self._recovery = Following(self._placed), Recovery()
        self._last_stamp: int | None = None
        self._last_failure: int | None = None
        self._attempts = self._contradictions = 0

    def configure(self, config: MapperConfig) -> None:
        """Go on with new settings. Another estimator needs a new Localiser (ConfigError)."""
        if config.estimator != self.config.estimator:
            raise ConfigError("estimator.* cannot change while a map is used: set it before the start")
        self._selector.config = config.keyframes
        self._scale.configure(config.scale)
        self.config = config
        self._map.configure(config.map)

    def add(self, frame: Frame, followed: Followed | None = None) -> MapUpdate:
        """The frame's pose in the map. Raises StampError and FrameError as the Mapper does.

        `followed`: somebody else has tracked it (`LiveTracking`), and the frames since the last one that came here.
        """
        check_frame(frame, self._last_stamp)
        self._last_stamp = stamp = frame.stamp
        if self._map.finder is None:
            return MapUpdate(frame, self.state, NO_MAP)
        corrected, stopwatch = self.take_corrections(), Stopwatch()
        camera = self.calibration.camera(frame)
        with stopwatch.time("track"):
            seen = shown(frame, camera, self.following, self._recovery, self._selector, self.calibration.readout, followed)
        grey, tracked, choice = seen.grey, seen.tracked, seen.choice
        found, reason = None, choice.reason
        if self._may_search(stamp) if tracked is None else choice.is_due and self.may_try(stamp):
            with stopwatch.time("encode"):
                straight = self.calibration.straight(frame.image, camera, self.following.turning.newest)
                query = self.estimator.encode(straight, camera)
            with stopwatch.time("localise"):
                found = self._place(query, self.following.pose_in_map(tracked))
            reason = found.reason
            if found.pose is not None:
                self._refer_to(stamp, grey, query, found, tracked)
            else:
                self._last_failure = stamp
        elif tracked is None:
            reason = "looked for again in a moment"
        return self._told(frame, reason, tracked, found, corrected, stopwatch)

    def _told(
        self, frame: Frame, reason: str, tracked: TrackedPose | None, found: Localisation | None, corrected: bool, stopwatch: Stopwatch
    ) -> MapUpdate:
        """What is known of the frame now."""
        was_lost, pose, trajectory = self.state is TrackingState.LOST, self.following.pose_in_map(tracked), self.following.trajectory
        if found is not None and found.pose is not None:
            pose, inliers = found.pose, found.inliers
        elif tracked is not None:
            inliers = tracked.inliers
            self.following.advance(frame.stamp, tracked)
        else:
            inliers = 0.0
            self.following.tracker.hold()
            self._recovery.lost(frame.stamp)
            reason = f"lost for {self._recovery.seconds(frame.stamp):.1f} s: {reason}"
        if pose is not None:
            self._recovery.seen(frame.stamp)
        self.state = TrackingState.LOST if pose is None else TrackingState.TRACKING
        return MapUpdate(
            frame,
            self.state,
            reason,
            pose,
            odometry=trajectory.odometry,
            odometry_covariance=None if trajectory.odometry is None else trajectory.covariance,
            inliers=inliers,
            corrected=corrected,
            found_again=was_lost and tracked is None and pose is not None and len(self._placed.poses) > 1,
            lost_seconds=self._recovery.seconds(frame.stamp),
            seconds=stopwatch.seconds,
        )

    # ---- placing ---------------------------------------------------------------------------------------------------------------------

    def may_try(self, stamp: int) -> bool:
        """As often as a keyframe would be due; after a try that failed the next frames wait a little."""
        return self._last_failure is None or (stamp - self._last_failure) * 1e-9 >= SECONDS_BETWEEN_TRIES

    def _may_search(self, stamp: int) -> bool:
        return self._last_failure is None or (stamp - self._last_failure) * 1e-9 >= SECONDS_BETWEEN_SEARCHES

    def _place(self, query: Tokens, pose: Pose | None) -> Localisation:
        """Where the map says the frame is; near where it was tracked to, if it was."""
        finder = self._map.finder
        assert finder is not None
        if pose is None:
            found = finder.place(query, finder.alike(query.image, self._attempts))
            self._attempts = 0 if found.pose is not None else self._attempts + 1
            other = None if found.pose is None else finder.rival(query, found)
            return found if other is None else nowhere(undecided(found, other))
        found = finder.place(query, finder.near(query.image, pose))
        if found.pose is None or found.depth is None:
            return found
        if same_pose(pose, found.pose, float(np.median(found.depth[found.depth > 0]))):
            self._contradictions = 0
            return found
        self._contradictions += 1
        if self._contradictions >= CONTRADICTIONS:
            self._contradictions = 0
            return found
        return Localisation(None, found.inliers, found.likeness, (), found.tried, "the map tells of another place than tracking: not taken")

    def _refer_to(self, stamp: int, grey: NDArray[np.uint8], query: Tokens, found: Localisation, tracked: TrackedPose | None) -> None:
        """Follow this frame's points from now on. The odometry does not jump: what it was wrong by is the map's to say."""
        following = self.following
        if tracked is not None and following.reference is not None:
            following.trajectory.advance(following.reference, tracked.pose, self._placed.poses, tracked.covariance)
        following.refer_to(self._placed.put(stamp, query, found), stamp, grey, had_pose=False, was_lost=True)
        following.forget_frames()  # a frame that was placed keeps its depth
        self._selector.accepted(stamp)
        self._last_failure = None
        if not self._map.saved_scale.is_metric:
            self._scale.observe(self._placed.newest, (), self._placed.poses, self._placed.units)

    # ---- its scale -------------------------------------------------------------------------------------------------------------------

    @property
    def correction_is_ready(self) -> bool:
        """As the Mapper's: whether the scale has changed is known with a placing, and taken up at once."""
        return False

    def take_corrections(self) -> bool:
        """The scale, once it is known or known better, moves the map; whether it did."""
        factor = self._scale.take_factor()
        if factor is None:
            return False
        self._map.grow(factor)
        self._placed.grow(factor)
        self.following.rescaled(dict.fromkeys(self._placed.poses, factor))
        return True

    def unit(self, index: int) -> float:
        """How many times its first size a frame that was placed, and its depth, has now."""
        return self._placed.units.get(index, 1.0)

    # ---- the map ---------------------------------------------------------------------------------------------------------------------

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        return self._map.keyframes

    @property
    def standpoints(self) -> Mapping[int, Standpoint]:
        return self._map.standpoints

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        return self._map.edges

    @property
    def pieces(self) -> tuple[int, ...]:
        """Keyframes of each piece that was saved with the map; nothing is looked for in them."""
        return self._map.pieces

    def cloud(self) -> PointCloud:
        """The whole map, one point a voxel."""
        return self._map.voxels.cloud()

    @property
    def points(self) -> int:
        """How many points the map has."""
        return len(self._map.voxels)

    def tiles(self, since: MapVersion | None = None) -> TileChanges:
        """As the Mapper's."""
        return self._map.tiles(since)

    def trajectory(self, at_most: int | None = None) -> list[tuple[int, Pose]]:
        """[(stamp in ns, camera to the map's world 4x4)] of the frames that were placed since the start or the last reset."""
        return self.following.trajectory.poses(self._placed.poses, at_most, self._placed.units)

    def align(self) -> tuple[Keyframe, ...]:
        """Raises LocalisationError: nothing changes the map."""
        raise LocalisationError("the map does not change while the camera is only localised: set mode to mapping to align it")

    def snapshot(self) -> MapSnapshot:
        """The map as it was given, or with the scale that it has got."""
        return self._map.snapshot(self.scale)
