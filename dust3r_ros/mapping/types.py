"""What goes into the Mapper and what comes out. Poses are camera-to-world, 4x4 float64, OpenCV axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment import Link
from dust3r_ros.geometry import Camera, Similarity


@dataclass(frozen=True, eq=False)
class Frame:
    """One image, when it was taken and, where known, by which camera."""

    stamp: int  # nanoseconds
    image: NDArray[np.uint8]  # [H, W, 3] RGB
    camera: Camera | None = None  # of exactly this size; None: not known


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A frame with a place in the map. Depth and confidence are those of the working image, on the map's scale."""

    index: int  # counts up from 0, never used twice in a map
    stamp: int  # nanoseconds
    pose: NDArray[np.float64]  # [4, 4] camera to world
    source: Camera  # the camera's own pixels
    camera: Camera  # the working image's pinhole camera
    image: NDArray[np.uint8]  # [h, w, 3] RGB, the working image
    depth: NDArray[np.float32]  # [h, w] along z, map units, 0 where nothing is known
    confidence: NDArray[np.float32]  # [h, w] >= 1
    name: str = ""  # of its camera, where there are several

    @cached_property
    def median_depth(self) -> float:
        """Of the pixels whose depth is known, map units; NaN if none is."""
        known = self.depth > 0
        return float(np.median(self.depth[known])) if known.any() else math.nan


@dataclass(frozen=True, eq=False)
class Standpoint:
    """A keyframe without its picture: when and where it was taken, and how far it looks. Always in memory."""

    index: int
    stamp: int  # nanoseconds
    pose: NDArray[np.float64]  # [4, 4] camera to world
    source: Camera  # the camera's own pixels
    depth: float  # median of the known depths, map units; 1 where none is known


class TrackingState(Enum):
    INITIALISING = "initialising"  # no map yet: the camera has not moved enough
    TRACKING = "tracking"
    LOST = "lost"  # the newest frame could not be placed; the map stands


@dataclass(frozen=True, eq=False)
class MapUpdate:
    """What one frame changed."""

    frame: Frame
    state: TrackingState
    reason: str  # why the frame became a keyframe, or why not; one short sentence
    pose: NDArray[np.float64] | None = None  # [4, 4] this frame's camera to world, corrected; None: not known
    odometry: NDArray[np.float64] | None = None  # [4, 4] this frame's camera to odom: smooth, drifts, never jumps
    # [6, 6] of the odometry: position (map units), then rotation vector (radians), along the axes of odom; not what a lost camera missed
    odometry_covariance: NDArray[np.float64] | None = None
    inliers: float = 0.0  # share of tracked points that agree with the pose, 0..1
    keyframes: tuple[Keyframe, ...] = ()  # new and revised ones, oldest first; the last is new if `is_keyframe`
    is_keyframe: bool = False
    corrected: bool = False  # the whole map has moved: an alignment of the whole graph came in
    loops: tuple[tuple[int, int], ...] = ()  # keyframes that this frame's keyframe was joined to, as (old, new)
    edges: tuple[tuple[int, int], ...] = ()  # directed pairs that this frame brought
    seconds: dict[str, float] = field(default_factory=dict)  # wall time per stage: track, pair, encode, estimate, align, fuse
    found_again: bool = False  # the camera was lost and is placed anew: how it moved in between is not known
    lost_seconds: float = 0.0  # of the images' own time since the camera's place was last known; 0 if it is
    camera: str = ""  # of a rig: the one whose pose and odometry these are
    agreeing: Mapping[str, float] = field(default_factory=dict)  # of a rig: by camera that was followed, share of points that agree


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in the world frame with their colour and confidence."""

    points: NDArray[np.float32]  # [N, 3] map units
    colors: NDArray[np.uint8]  # [N, 3] RGB
    confidence: NDArray[np.float32]  # [N] >= 1

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, eq=False)
class MapSnapshot:
    """All that a map is, to be saved, loaded and gone on from."""

    keyframes: Sequence[Keyframe]  # oldest first; those that left the window are smaller than they were, and read when asked for
    edges: tuple[tuple[int, int], ...]  # directed pairs of keyframe indices
    cloud: PointCloud  # what the keyframes that left the window gave to the map
    window: tuple[int, ...]  # indices of the keyframes that are still in the window
    scale_source: str = "none"  # "none": one unit is the median depth of the first keyframe; else what made it a metre
    scale_uncertainty: float = math.nan  # one standard deviation as a share of the scale; NaN where it is not known
    # What holds the map together; empty in maps that were saved before it was kept.
    links: tuple[Link, ...] = ()  # between keyframes, those of loops too
    frames: Mapping[int, Similarity] = field(default_factory=dict)  # each keyframe's own frame and depth units to the world's
    voxel_size: float = 0.0  # map units that the cloud's points are apart; 0: not known
    readout: float = 0.0  # seconds from the camera's first row to its last (rolling shutter); 0: at once, or not known
    pieces: tuple[MapSnapshot, ...] = ()  # seen while the camera was lost, each in a frame and on a scale of its own
    owners: NDArray[np.int32] | None = None  # [N] of the cloud's points: the keyframe that each moves with
