"""Points of the newest keyframe, followed from frame to frame: how far the camera has moved, and where it is.

Corners are tracked by pyramidal Lucas-Kanade, forth and back (Bouguet, 2001), then compared with the keyframe itself in a window too small
to hold near and far things at once. Their motion tells a keyframe's need; with the keyframe's depth they give the frame's pose by PnP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dust3r_ros.geometry import Camera, inverse_pose, solve_pnp, transform_points
from dust3r_ros.mapping.tracking.odometry_covariance import pnp_covariance
from dust3r_ros.mapping.types import Keyframe

LONGEST_SIDE = 640  # pixels; larger images are tracked reduced
MAX_POINTS = 400
MIN_POINTS = 12
WINDOW = (21, 21)  # pixels about a point that are compared, from frame to frame
FINE_WINDOW = (7, 7)  # and with the keyframe
MAX_RETURN_ERROR = 1.0  # pixels between a point and where tracking it forth and back ends
THRESHOLD = 0.006  # of the image's width: an error below it agrees with a pose
MAX_CORRECTION = 1.5  # pixels by which comparing with the keyframe may move a point
MAX_FINE_RETURN = 0.3  # pixels, as MAX_RETURN_ERROR: a keyframe that looks different from here says nothing
MIN_INLIERS = 0.3  # below this share of points that agree, a pose is not believed


@dataclass(frozen=True, eq=False)
class Tracks:
    """The points that are still followed, in the keyframe and in the newest frame; pixels of the tracked (reduced) image."""

    keyframe: NDArray[np.float32]  # [N, 2]
    current: NDArray[np.float32]  # [N, 2]
    overlap: float  # share of the keyframe's points that are still followed, 0..1
    motion: float | None = None  # pixels that most of them moved in the newest step, where steps are of one image

    def __len__(self) -> int:
        return len(self.current)


@dataclass(frozen=True)
class TrackedPose:
    pose: NDArray[np.float64]  # [4, 4] this frame's camera to the keyframe's camera
    inliers: float  # share of the points that agree
    covariance: NDArray[np.float64] | None = None  # [6, 6] of an increment on the pose's right: rotation, translation


def tracking_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] RGB to grey, reduced to at most LONGEST_SIDE."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    shrink = LONGEST_SIDE / max(grey.shape)
    if shrink < 1.0:
        size = (round(grey.shape[1] * shrink), round(grey.shape[0] * shrink))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(grey, dtype=np.uint8)


class Tracker:
    """Follows one keyframe's points through the frames after it."""

    def __init__(self) -> None:
        self._previous: NDArray[np.uint8] | None = None
        self._tracks: Tracks | None = None
        self._started_with = 0
        self.keyframe_image: NDArray[np.uint8] | None = None  # its tracking image, where the points are as they were chosen in it
        self._before: tuple[NDArray[np.uint8], Tracks] | None = None

    @property
    def running(self) -> bool:
        return self._tracks is not None

    def start(self, grey: NDArray[np.uint8]) -> int:
        """Choose the points to follow in a keyframe's tracking image; their number."""
        found = _corners(grey)
        self._previous = self.keyframe_image = grey
        self._started_with = len(found)
        self._tracks = Tracks(found, found, 1.0 if len(found) else 0.0)
        return len(found)

    @property
    def now(self) -> tuple[NDArray[np.uint8], Tracks] | None:
        """The newest tracking image and the points in it."""
        return None if self._previous is None or self._tracks is None else (self._previous, self._tracks)

    def stop(self) -> None:
        self._previous = self.keyframe_image = self._tracks = self._before = None

    def go_on(self, grey: NDArray[np.uint8], tracks: Tracks) -> None:
        """Follow points of a keyframe that were found in this frame's tracking image."""
        self._previous, self._tracks, self.keyframe_image = grey, tracks, None
        self._started_with = round(len(tracks) / max(tracks.overlap, 1e-3))

    def hold(self) -> None:
        """The newest frame led nowhere: the next one is followed from the one before it."""
        if self._before is not None:
            self._previous, self._tracks = self._before

    def track(self, grey: NDArray[np.uint8]) -> Tracks:
        """Follow the points into the next frame's tracking image."""
        assert self._previous is not None
        assert self._tracks is not None
        self._before = self._previous, self._tracks
        before = self._tracks.current
        if len(before) and grey.shape == self._previous.shape:
            after, kept = follow_points(self._previous, grey, before)
            own, after = self._tracks.keyframe[kept], after[kept]
            tracks = Tracks(own, after, len(after) / max(1, self._started_with))
            if self.keyframe_image is not None:
                tracks = placed_against(self.keyframe_image, grey, tracks)
        else:
            tracks = Tracks(before[:0], before[:0], 0.0)
        self._previous, self._tracks = grey, tracks
        return tracks


def corner_count(grey: NDArray[np.uint8]) -> int:
    """How many points of a tracking image are worth following."""
    return len(_corners(grey))


def follow_points(
    previous: NDArray[np.uint8], grey: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where points [N, 2] of one tracking image lie in the next, of the same size, and which of them [N] come back where they were."""
    after, found = _lucas_kanade(previous, grey, points)
    back, returned = _lucas_kanade(grey, previous, after)
    height, width = grey.shape
    kept = (found.ravel() == 1) & (returned.ravel() == 1) & (np.abs(back - points).max(axis=1) < MAX_RETURN_ERROR)
    kept &= (after >= 0).all(axis=1) & (after[:, 0] <= width - 1) & (after[:, 1] <= height - 1)
    return after, kept


def _corners(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, 2] pixels worth following."""
    points = cv2.goodFeaturesToTrack(grey, MAX_POINTS, 0.01, max(5.0, 0.012 * max(grey.shape)))
    return points.reshape(-1, 2).astype(np.float32) if points is not None else np.zeros((0, 2), np.float32)


def points_seen_again(grey: NDArray[np.uint8], keyframe: Keyframe, camera: Camera, pose: NDArray[np.float64]) -> Tracks:
    """Corners of a frame whose `pose` (4x4, its camera to the keyframe's) is known, and where the keyframe has them.

    `camera` is that of the tracked image. The corner's depth is that of the keyframe's nearest point as seen from the frame; the overlap is
    the share of the keyframe's points that the frame sees.
    """
    corners = _corners(grey)
    known = (keyframe.depth > 0) & (keyframe.confidence > 1.5)
    points = transform_points(inverse_pose(pose), keyframe.camera.rays()[known].astype(np.float64) * keyframe.depth[known][:, None])
    everything = len(points)
    points = points[points[:, 2] > 0]
    pixels = camera.project(points)
    seen = np.isfinite(pixels).all(1) & camera.contains(pixels)
    nothing = Tracks(corners[:0], corners[:0], 0.0)
    if not len(corners) or int(seen.sum()) < MIN_POINTS:
        return nothing
    overlap = int(seen.sum()) / everything
    points, pixels = points[seen], pixels[seen]
    rays = camera.unproject(corners)
    distance, nearest = cKDTree(pixels).query(corners)
    spacing = max(3.0, 2.0 * camera.width / keyframe.camera.width)
    there = transform_points(pose, rays * points[nearest, 2:3])
    own = camera.project(there)
    usable = (distance < spacing) & np.isfinite(own).all(1) & (there[:, 2] > 0)
    usable &= camera.contains(np.where(np.isfinite(own), own, -1.0))
    return Tracks(own[usable].astype(np.float32), corners[usable], overlap) if usable.any() else nothing


def _lucas_kanade(
    previous: NDArray[np.uint8], following: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Where points [N, 2] of one image lie in the next, and which were found [N, 1]."""
    after, found, _ = cv2.calcOpticalFlowPyrLK(previous, following, points, cast(Any, None), winSize=WINDOW, maxLevel=4)
    return after, found


def placed_against(keyframe: NDArray[np.uint8], grey: NDArray[np.uint8], tracks: Tracks) -> Tracks:
    """Points where the keyframe's own lie in `grey`, near where they were followed to; there, where the comparison says nothing.

    A large window is pulled along by what moves beside the point, nearer or farther, and errors of steps add up: on a sideways walk both
    make the way too short. A small one against the keyframe does neither, but has to begin near the right place.
    """
    if not len(tracks) or keyframe.shape != grey.shape:
        return tracks
    there, better = compared(keyframe, grey, tracks.keyframe, tracks.current)
    return Tracks(tracks.keyframe, np.where(better[:, None], there, tracks.current), tracks.overlap)


def compared(
    keyframe: NDArray[np.uint8], grey: NDArray[np.uint8], own: NDArray[np.float32], found: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where the keyframe's points `own` [N, 2] lie in `grey`, near where they were `found` [N, 2], and which [N] agree both ways."""
    there, seen = _finely(keyframe, grey, own, found)
    back, returned = _finely(grey, keyframe, there, own)
    better = seen & returned & (np.abs(there - found).max(axis=1) < MAX_CORRECTION) & (np.abs(back - own).max(axis=1) < MAX_FINE_RETURN)
    height, width = grey.shape
    better &= (there >= 0).all(axis=1) & (there[:, 0] <= width - 1) & (there[:, 1] <= height - 1)
    return there, better


def _finely(
    first: NDArray[np.uint8], second: NDArray[np.uint8], points: NDArray[np.float32], guess: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, points, guess.copy(), winSize=FINE_WINDOW, maxLevel=0, flags=cv2.OPTFLOW_USE_INITIAL_FLOW
    )
    return there, found.ravel() == 1


def parallax(tracks: Tracks, camera: Camera) -> float:
    """Median motion that no rotation explains, as a share of the image width. `camera` is that of the tracked image.

    The rotation is fitted to the rays with Cauchy weights (Kabsch), so that near points, which move most, do not drag it along.
    """
    if len(tracks) < MIN_POINTS:
        return 0.0
    first, second = _directions(camera, tracks.keyframe), _directions(camera, tracks.current)
    seen = np.isfinite(first[:, 0]) & np.isfinite(second[:, 0])  # a fisheye's rim has no ray at z = 1
    if int(seen.sum()) < MIN_POINTS:
        return 0.0
    first, second = first[seen], second[seen]
    weights = np.ones((len(first), 1))
    middle = 0.0
    for _ in range(5):
        u, _, vt = np.linalg.svd((second * weights).T @ first)
        rotation = (u * (1.0, 1.0, np.sign(np.linalg.det(u @ vt)))) @ vt
        off = second - first @ rotation.T
        squared = np.einsum("ni,ni->n", off, off)
        middle = float(np.median(squared))  # of the squares: an order is all that a median asks for
        weights = (1.0 / (1.0 + squared / max(middle, 1e-18)))[:, None]
    return float(np.sqrt(middle)) * camera.fx / camera.width


def frame_pose(tracks: Tracks, keyframe: Keyframe, camera: Camera, guess: NDArray[np.float64] | None) -> TrackedPose | None:
    """The frame's pose by PnP on the keyframe's depth; None if too few points agree. `camera` is that of the tracked image."""
    known = points_with_depth(tracks, keyframe, camera)
    if known is None:
        return None
    points, pixels = known
    found = solve_pnp(points, pixels, camera, threshold_px=THRESHOLD * camera.width, guess=guess)
    if found is None or float(found.inliers.mean()) < MIN_INLIERS:
        return None
    share = float(found.inliers.mean())
    return TrackedPose(found.pose, share, pnp_covariance(points[found.inliers], camera, found.pose, found.error_px, share))


def points_with_depth(tracks: Tracks, keyframe: Keyframe, camera: Camera) -> tuple[NDArray[np.float64], NDArray[np.float32]] | None:
    """Points whose depth the keyframe knows: [N, 3] in its camera, [N, 2] pixels in the newest frame; None if too few."""
    if len(tracks) < MIN_POINTS:
        return None
    rays = np.nan_to_num(camera.unproject(tracks.keyframe), nan=-1e6)  # a pixel without a ray lies outside every working image
    working = np.rint(np.nan_to_num(keyframe.camera.project(rays), nan=-1.0).clip(-1, 1e6)).astype(int)
    inside = ((working >= 0) & (working < (keyframe.camera.width, keyframe.camera.height))).all(axis=1)
    columns, rows = np.where(inside[:, None], working, 0).T
    depth, confidence = keyframe.depth[rows, columns], keyframe.confidence[rows, columns]
    known = inside & (depth > 0) & (confidence > 1.5)
    if int(known.sum()) < MIN_POINTS:
        return None
    return rays[known] * depth[known, None], tracks.current[known]


def _directions(camera: Camera, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    rays = np.asarray(camera.unproject(pixels), np.float64)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
