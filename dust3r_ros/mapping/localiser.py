"""Localisation alone: a camera's pose for every frame, in a map that stands as it was saved. Has the Mapper's methods and takes its place.

A frame is placed by keyframes of the map (`placing`), which gives it depth too; its points are then followed from frame to frame as those
of a keyframe are when mapping, until the next frame is due to be placed. Drift ends at every placing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import ConfigError, MapperConfig
from dust3r_ros.mapping.keyframes.self_calibration import SelfCalibration
from dust3r_ros.mapping.mapper import SECONDS_BETWEEN_TRIES, configured_estimator
from dust3r_ros.mapping.places.localisation import Localisation, LocalisationError
from dust3r_ros.mapping.places.place_finder import PlaceFinder
from dust3r_ros.mapping.places.places import standpoint
from dust3r_ros.mapping.places.placing import same_pose
from dust3r_ros.mapping.points.map_tiles import MapVersion, TileChanges, tile_changes
from dust3r_ros.mapping.points.saved_map import whole_voxels
from dust3r_ros.mapping.points.voxel_map import VoxelMap
from dust3r_ros.mapping.scale.scale_fusion import MapScale
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.frame_check import check_frame
from dust3r_ros.mapping.tracking.frame_trajectory import FrameTrajectory
from dust3r_ros.mapping.tracking.keyframe_selection import KeyframeSelector
from dust3r_ros.mapping.tracking.tracker import TrackedPose, Tracker, Tracks, frame_pose, parallax, tracking_image
from dust3r_ros.mapping.types import Frame, Keyframe, MapSnapshot, MapUpdate, PointCloud, Standpoint, TrackingState

WORLD = -1  # what the trajectory's poses are relative to: a map that does not change
CONTRADICTIONS = 3  # placings in a row that tell of another place than tracking before they are believed
NO_MAP = "there is no map to localise in: load one (~/load_map, map_file, --map)"

Pose = NDArray[np.float64]


class Localiser:
    """Frames in, poses in a given map out. Not thread-safe: one thread owns it."""

    def __init__(self, config: MapperConfig | None = None, estimator: Estimator | None = None, snapshot: MapSnapshot | None = None) -> None:
        self.config = config or MapperConfig()
        self.estimator = estimator or configured_estimator(self.config)
        self._map = MapSnapshot((), (), PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32)), ())
        self._finder: PlaceFinder | None = None
        self._calibration = SelfCalibration(self.estimator, self.config.estimator, may_calibrate=False)
        self._cloud: PointCloud | None = None
        self._voxels: VoxelMap | None = None
        self._standpoints: dict[int, Standpoint] = {}
        self.reset()
        if snapshot is not None:
            self.restore(snapshot)

    def restore(self, snapshot: MapSnapshot) -> None:
        """Localise in this map from now on. LocalisationError for one without keyframes; what was there before stands then."""
        if not snapshot.keyframes:
            raise LocalisationError("localisation in a map without keyframes: save the map after its second keyframe")
        finder = PlaceFinder(snapshot, self.estimator)
        self._calibration = SelfCalibration(self.estimator, self.config.estimator, may_calibrate=False)
        self._calibration.know(snapshot.keyframes[-1].source)
        self._map, self._finder, self._cloud, self._voxels = snapshot, finder, None, None
        self._standpoints = {keyframe.index: standpoint(keyframe) for keyframe in snapshot.keyframes}
        self.reset()

    def reset(self) -> None:
        """Forget where the camera is. The map stands."""
        self.state = TrackingState.INITIALISING if self._finder is None else TrackingState.LOST
        self._selector = KeyframeSelector(self.config.keyframes)
        self._trajectory = FrameTrajectory()
        self._tracker = Tracker()
        self._reference: Keyframe | None = None  # the frame that was placed last, with its depth; no part of the map
        self._placings = 0  # so many frames were placed: the references' indices
        self._relative: Pose | None = None  # the newest frame's camera to the reference's
        self._last_stamp: int | None = None
        self._last_failure: int | None = None
        self._last_known: int | None = None  # stamp of the newest frame that had a pose, or of the first
        self._attempts = self._contradictions = 0

    def configure(self, config: MapperConfig) -> None:
        """Go on with new settings. Another estimator needs a new Localiser (ConfigError)."""
        if config.estimator != self.config.estimator:
            raise ConfigError("estimator.* cannot change while a map is used: set it before the start")
        self._selector.config = config.keyframes
        self.config, self._cloud, self._voxels = config, None, None

    def add(self, frame: Frame) -> MapUpdate:
        """The frame's pose in the map. Raises StampError and FrameError as the Mapper does."""
        check_frame(frame, self._last_stamp)
        self._last_stamp = frame.stamp
        if self._finder is None:
            return MapUpdate(frame, self.state, NO_MAP)
        stopwatch = Stopwatch()
        camera = self._calibration.camera(frame)
        with stopwatch.time("track"):
            grey = tracking_image(frame.image)
            tracked_camera = camera.resized(grey.shape[1], grey.shape[0])
            tracks = self._tracker.track(grey) if self._tracker.running else None
            tracked = self._pose_of(tracks, tracked_camera)
            due, reason = self._is_due(frame.stamp, grey, tracks, tracked, tracked_camera)
        pose, inliers = self._follow(tracked), 0.0 if tracked is None else tracked.inliers
        if due:
            with stopwatch.time("encode"):
                query = self.estimator.encode(frame.image, camera)
            with stopwatch.time("localise"):
                found = self._place(query, pose)
            reason = found.reason
            if found.pose is not None:
                self._refer_to(frame.stamp, grey, query, found)
                pose, inliers = found.pose, found.inliers
            else:
                self._last_failure = frame.stamp
        if pose is not None:
            self._trajectory.append(frame.stamp, WORLD, pose)
        found_again = pose is not None and self.state is TrackingState.LOST and self._last_known is not None
        if pose is not None or self._last_known is None:
            self._last_known = frame.stamp
        self.state = TrackingState.LOST if pose is None else TrackingState.TRACKING
        return MapUpdate(
            frame,
            self.state,
            reason,
            pose,
            odometry=self._trajectory.odometry,
            odometry_covariance=None if self._trajectory.odometry is None else self._trajectory.covariance,
            inliers=inliers,
            found_again=found_again and self._placings > 1,
            lost_seconds=(frame.stamp - self._last_known) * 1e-9,
            seconds=stopwatch.seconds,
        )

    # ---- tracking --------------------------------------------------------------------------------------------------------------------

    def _pose_of(self, tracks: Tracks | None, camera: Camera) -> TrackedPose | None:
        if tracks is None or self._reference is None:
            return None
        return frame_pose(tracks, self._reference, camera, self._relative)

    def _follow(self, tracked: TrackedPose | None) -> Pose | None:
        """Move the odometry by this frame's motion; the frame's pose in the map."""
        if tracked is None or self._reference is None:
            return None
        self._relative = tracked.pose
        self._trajectory.advance(self._reference.index, tracked.pose, {self._reference.index: self._reference.pose}, tracked.covariance)
        return self._reference.pose @ tracked.pose

    def _is_due(
        self, stamp: int, grey: NDArray[np.uint8], tracks: Tracks | None, tracked: TrackedPose | None, camera: Camera
    ) -> tuple[bool, str]:
        """Whether the frame should be placed by the map anew: as often as a keyframe would be due, and at once when the camera is lost."""
        waits = self._last_failure is not None and (stamp - self._last_failure) * 1e-9 < SECONDS_BETWEEN_TRIES
        if tracks is None or tracked is None or self._reference is None:
            return not waits, "lost: looked for again in a moment"
        depth = self._reference.depth
        baseline = float(np.linalg.norm(tracked.pose[:3, 3]) / np.median(depth[depth > 0]))
        choice = self._selector.choose(stamp, grey, parallax(tracks, camera), tracks.overlap, baseline)
        return choice.is_due and not waits, choice.reason

    # ---- the map ---------------------------------------------------------------------------------------------------------------------

    def _place(self, query: Tokens, pose: Pose | None) -> Localisation:
        """Where the map says the frame is; near where it was tracked to, if it was."""
        assert self._finder is not None
        if pose is None:
            found = self._finder.place(query, self._finder.alike(query.image, self._attempts))
            self._attempts = 0 if found.pose is not None else self._attempts + 1
            return found
        found = self._finder.place(query, self._finder.near(query.image, pose))
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

    def _refer_to(self, stamp: int, grey: NDArray[np.uint8], query: Tokens, found: Localisation) -> None:
        """Follow this frame's points from now on. The odometry does not jump: what it was wrong by is the map's to say."""
        assert found.pose is not None
        assert found.depth is not None
        assert found.confidence is not None
        self._placings += 1
        index = self._placings
        self._reference = Keyframe(index, stamp, found.pose, query.source, query.camera, query.image, found.depth, found.confidence)
        self._relative = np.eye(4)
        if self._trajectory.odometry is None:
            self._trajectory.advance(index, np.eye(4), {index: found.pose})
        self._trajectory.anchor(index)
        self._tracker.start(grey)
        self._selector.accepted(stamp)
        self._last_failure = None

    # ---- as the Mapper's -------------------------------------------------------------------------------------------------------------

    @property
    def scale(self) -> MapScale:
        """The loaded map's: nothing that is measured here changes it."""
        return MapScale(self._map.scale_source, self._map.scale_uncertainty)

    def add_odometry(self, stamp: int, pose: ArrayLike) -> None:
        """Not used: the map's scale stands."""

    def add_depth(self, stamp: int, depth: NDArray[np.floating]) -> None:
        """Not used: the map's scale stands."""

    def set_up(self, up: ArrayLike) -> None:
        """Not used: the map's scale stands."""

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        return self._map.keyframes

    @property
    def standpoints(self) -> Mapping[int, Standpoint]:
        return self._standpoints

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        return self._map.edges

    def unit(self, index: int) -> float:  # noqa: ARG002
        """As the Mapper's: no correction changes a keyframe here."""
        return 1.0

    def cloud(self) -> PointCloud:
        """The whole map, one point a voxel."""
        if self._cloud is None:
            self._cloud = self._whole_voxels().cloud()
        return self._cloud

    @property
    def points(self) -> int:
        """How many points the map has."""
        return len(self._whole_voxels())

    def tiles(self, since: MapVersion | None = None) -> TileChanges:
        """As the Mapper's: all of the map, then nothing."""
        voxels = self._whole_voxels()
        return tile_changes(voxels, voxels.version, since)

    def _whole_voxels(self) -> VoxelMap:
        if self._voxels is None:
            self._voxels = whole_voxels(self._map, self.config.map)
        return self._voxels

    def trajectory(self, at_most: int | None = None) -> list[tuple[int, Pose]]:
        """[(stamp in ns, camera to the map's world 4x4)] of the frames that were placed since the start or the last reset."""
        return self._trajectory.poses({WORLD: np.eye(4)}, at_most)

    def align(self) -> tuple[Keyframe, ...]:
        """Raises LocalisationError: nothing changes the map."""
        raise LocalisationError("the map does not change while the camera is only localised: set mode to mapping to align it")

    def snapshot(self) -> MapSnapshot:
        """The map as it was given."""
        return self._map
