"""How a followed camera turns, and its pose by points of pictures whose rows were read while it did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, straightened, turn_between
from dust3r_ros.mapping.tracking.tracker import TrackedPose, Tracks, frame_pose
from dust3r_ros.mapping.types import Keyframe

TURN_OVER, TURN_AT_MOST = 0.1, 0.25  # seconds between the frames that tell how the camera turns

Pose = NDArray[np.float64]
Turn = NDArray[np.float64]  # [3] (`geometry.rolling_shutter`); zero where it is not known


class Turning:
    """Of one camera, by its newest frames' poses to their reference keyframe."""

    def __init__(self) -> None:
        self.newest: Turn = np.zeros(3)  # of the newest frame
        self._reference: Turn | None = np.zeros(3)  # when the reference was taken; None: it is yet to be seen
        self.recent: Sequence[tuple[int, Pose]] = ()  # stamps and poses of the newest frames, to the same keyframe

    @property
    def reference(self) -> Turn:
        """When the reference was taken."""
        return np.zeros(3) if self._reference is None else self._reference

    @property
    def told(self) -> Turn | None:
        """As `reference`; None: nobody knows yet."""
        return self._reference

    def look(self, stamp: int, pose: Pose | None) -> None:
        """The newest frame is at `pose`. By the oldest of those just before it: nearer ones say less of a small turn."""
        self.newest = np.zeros(3)
        if pose is None:
            return
        for before, known in self.recent:
            seconds = (stamp - before) * 1e-9
            if 0 < seconds <= (TURN_OVER if before != self.recent[-1][0] else TURN_AT_MOST):
                self.newest = turn_between(known, pose, seconds)
                if self._reference is None:  # nobody saw how the camera came to it: as it went on from there
                    self._reference = self.newest
                return

    def stand(self, stamp: int, pose: Pose) -> None:
        """The newest frame's place is believed."""
        kept = [entry for entry in self.recent if (stamp - entry[0]) * 1e-9 <= TURN_OVER or entry is self.recent[-1]]
        self.recent = (*kept, (stamp, pose))

    def refer_to(self, stamp: int, pose: Pose, reference: Turn | None) -> None:
        """The newest frame is followed from another keyframe now, which was taken while the camera turned so (None: yet to be seen)."""
        self._reference, self.recent = reference, ((stamp, pose),)

    def refer_before(self, reference: Turn | None) -> None:
        """As `refer_to`, and where the newest frame is by that keyframe is not known yet."""
        self._reference, self.recent = reference, ()


def pose_by(
    tracks: Tracks | None, keyframe: Keyframe | None, camera: Camera, guess: Pose | None, stamp: int, turning: Turning, readout: float
) -> TrackedPose | None:
    """A frame's pose to its keyframe, with all rows brought to the middle one's time. `camera` is that of the tracked image."""
    found = None if tracks is None or keyframe is None else frame_pose(tracks, keyframe, camera, guess)
    turning.look(stamp, None if found is None else found.pose)
    if tracks is None or keyframe is None or found is None or not readout:
        return found
    straight = straight_tracks(tracks, camera, turning.reference, turning.newest, readout)
    return frame_pose(straight, keyframe, camera, found.pose) or found


def straight_tracks(tracks: Tracks, camera: Camera, reference: Turn, newest: Turn, readout: float) -> Tracks:
    """As if the rows of both pictures had been read at once."""
    if not readout:
        return tracks
    then = straightened(tracks.keyframe, camera, reference, readout)
    now = straightened(tracks.current, camera, newest, readout)
    return Tracks(then.astype(np.float32), now.astype(np.float32), tracks.overlap)


def camera_by(keyframe: Keyframe | None, camera: Camera) -> Camera:
    """That of a frame; one that nobody measured is as the alignment has its keyframe's."""
    if not camera.assumed or keyframe is None or (keyframe.source.width, keyframe.source.height) != (camera.width, camera.height):
        return camera
    return keyframe.source
