"""Frames and the points by which they were placed: to place them anew once their keyframe's depth, or the camera, is known better."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.tracking.tracker import Tracks, frame_pose
from dust3r_ros.mapping.tracking.turning import straight_tracks
from dust3r_ros.mapping.types import Keyframe

MAX_REMEMBERED = 1000
MAX_ANEW = 60  # placed anew when the next keyframe comes: some milliseconds each
SAMPLES = 24  # of the keyframe's depth, across and down: whether it has changed
SAME_DEPTH = 2e-3  # median change as a share of the depth, below which frames stay where they are

Pose = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Remembered:
    """What a frame's pose was computed from."""

    stamp: int
    reference: int
    tracks: Tracks
    camera: Camera  # of the tracked image
    turn: NDArray[np.float64]
    reference_turn: NDArray[np.float64]
    own: Pose | None = None  # [4, 4] the frame's camera to the keyframe's, in the keyframe's own unit: near where it will be
    offset: Pose | None = None  # [4, 4] by which pairs have corrected what the points say, in the keyframe's own unit


@dataclass(frozen=True, eq=False)
class _Placed:
    frame: Remembered
    depth: NDArray[np.float32]  # [SAMPLES, SAMPLES] some of its reference's when it was placed, in the reference's own unit
    is_its: bool  # taken by its reference's camera, whatever is known of that by now


class RememberedFrames:
    """The newest frames of one camera."""

    def __init__(self) -> None:
        self._frames: deque[_Placed] = deque(maxlen=MAX_REMEMBERED)

    def add(self, one: Remembered, keyframe: Keyframe, unit: float) -> None:
        """`keyframe`: its reference, as it was placed by; `unit`: how many map units the reference's own unit was then."""
        is_its = one.camera.assumed or one.camera == keyframe.source.resized(one.camera.width, one.camera.height)
        self._frames.append(_Placed(one, _some(keyframe, unit), is_its))

    def correct_newest(self, offset: Pose) -> None:
        """A pair has corrected the newest frame: [4, 4] on the left, in the keyframe's own unit."""
        if self._frames:
            newest = self._frames[-1]
            self._frames[-1] = replace(newest, frame=replace(newest.frame, offset=offset))

    def forget(self, but: int | None = None) -> None:
        """They are where they are for good; not those of reference `but`."""
        kept = [placed for placed in self._frames if placed.frame.reference == but]
        self._frames.clear()
        self._frames.extend(kept)

    def by_camera(self, camera: Camera, readout: float, keyframe_of: Callable[[int], Keyframe | None]) -> dict[tuple[int, int], Pose]:
        """All, placed by another camera in a map made with it: camera to keyframe [4, 4] by stamp and reference, map units."""
        found = {}
        for at, known in enumerate(self._frames):
            one = known.frame
            keyframe, own = keyframe_of(one.reference), camera.resized(one.camera.width, one.camera.height)
            pose = None if keyframe is None else _pose(one, keyframe, own, readout, None)
            self._frames[at] = replace(known, frame=replace(one, camera=own, offset=None))  # `by_depth` goes on from there
            if pose is not None:
                found[one.stamp, one.reference] = pose
        return found

    def by_depth(self, reference: int, readout: float, keyframe: Keyframe | None, unit: float) -> dict[tuple[int, int], Pose]:
        """The newest of one reference's that were placed by another depth than it has now, placed by this, as `by_camera`.

        `unit`: how many map units the reference's own unit is.
        """
        found = dict[tuple[int, int], Pose]()
        if keyframe is None:
            return found
        now = _some(keyframe, unit)
        for at in [at for at, known in enumerate(self._frames) if known.frame.reference == reference][-MAX_ANEW:]:
            known = self._frames[at]
            one = known.frame
            if not _differ(known.depth, now):
                continue
            camera = (keyframe.source if known.is_its else one.camera).resized(one.camera.width, one.camera.height)
            pose = _pose(one, keyframe, camera, readout, None if one.own is None else _scaled(one.own, unit))
            if pose is not None:
                self._frames[at] = replace(known, frame=replace(one, own=_scaled(pose, 1.0 / unit)), depth=now)
                found[one.stamp, reference] = pose if one.offset is None else _scaled(one.offset, unit) @ pose
        return found


def _pose(one: Remembered, keyframe: Keyframe, camera: Camera, readout: float, guess: Pose | None) -> Pose | None:
    straight = straight_tracks(one.tracks, camera, one.reference_turn, one.turn, readout)
    found = frame_pose(straight, keyframe, camera, guess)
    return None if found is None else found.pose


def _scaled(pose: Pose, unit: float) -> Pose:
    scaled = pose.copy()
    scaled[:3, 3] *= unit
    return scaled


def _some(keyframe: Keyframe, unit: float) -> NDArray[np.float32]:
    height, width = keyframe.depth.shape
    rows, columns = (np.linspace(0, size - 1, SAMPLES).astype(int) for size in (height, width))
    return keyframe.depth[np.ix_(rows, columns)] / np.float32(unit)


def _differ(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    both = (one > 0) & (other > 0)
    return bool(both.any() and np.median(np.abs(other[both] / one[both] - 1.0)) > SAME_DEPTH)
