"""Where every frame was: remembered relative to its keyframe, so that a corrected keyframe corrects its frames too."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.tracking.frame_legs import FrameLegs
from dust3r_ros.mapping.tracking.odometry_covariance import OdometryCovariance

OUT_OF_ORDER = 60_000_000_000  # ns by which frames may come later than newer ones
MAX_FRAMES = 200_000  # nearly two hours at 30 Hz; the oldest are forgotten first

Pose = NDArray[np.float64]


class FrameTrajectory:
    """Stamps with poses relative to keyframes, and the odometry that follows from them."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, int, NDArray[np.float32]]] = deque(maxlen=MAX_FRAMES)
        self.legs = FrameLegs()
        self._newest: tuple[int, Pose] | None = None
        self.odometry: Pose | None = None
        self._believed = OdometryCovariance()

    @property
    def covariance(self) -> NDArray[np.float64]:
        """[6, 6] of the odometry: position (map units) and rotation vector (radians) along its own axes."""
        return self._believed.covariance

    def __len__(self) -> int:
        return len(self._frames)

    def reset(self) -> None:
        self._frames.clear()
        self.legs.clear()
        self._newest = self.odometry = None
        self._believed = OdometryCovariance()

    def append(self, stamp: int, keyframe: int, relative: Pose, unit: float = 1.0) -> None:
        """A frame's camera-to-keyframe pose (4x4) in map units; `unit`: how many of them the keyframe's own unit is now."""
        own = relative[:3].astype(np.float32)
        own[:, 3] /= unit
        self._frames.append((stamp, keyframe, own))

    def revise(self, found: Mapping[tuple[int, int], Pose], units: Mapping[int, float]) -> None:
        """Frames by stamp and keyframe: their camera-to-keyframe poses (4x4) are these, in map units, after all."""
        own = {}
        for (stamp, keyframe), relative in found.items():
            own[stamp, keyframe] = relative.copy()
            own[stamp, keyframe][:3, 3] /= units.get(keyframe, 1.0)
        oldest = min((stamp for stamp, _ in own), default=0)
        for at in range(len(self._frames) - 1, -1, -1):  # the newest, for the most part
            stamp, keyframe, _ = self._frames[at]
            if stamp < oldest - OUT_OF_ORDER:
                break
            if (stamp, keyframe) in own:
                self._frames[at] = (stamp, keyframe, own[stamp, keyframe][:3].astype(np.float32))
        self.legs.revise(own)

    def advance(self, keyframe: int, relative: Pose, poses: Mapping[int, Pose], covariance: NDArray[np.float64] | None = None) -> Pose:
        """Move the odometry by the motion since the newest frame, both ends measured in the map as it is now; the new odometry.

        Only motion goes in, so that a correction of the map does not move the odometry. `covariance`: [6, 6] of `relative`, where it is
        known (`pnp_covariance`).
        """
        now = poses[keyframe] @ relative
        if self.odometry is None or self._newest is None:
            self.odometry = now
        else:
            before = poses[self._newest[0]] @ self._newest[1]
            self.odometry = self.odometry @ np.linalg.inv(before) @ now
        self._newest = (keyframe, relative)
        if covariance is not None:
            self._believed.advance(keyframe, covariance, self.odometry)
        return self.odometry

    def found_again(self, keyframe: int, relative: Pose, poses: Mapping[int, Pose]) -> Pose:
        """The newest frame is there after a gap: the odometry stays where it was lost, and goes on from there; the odometry."""
        if self.odometry is None:
            self.odometry = poses[keyframe] @ relative
        self._newest = (keyframe, relative)
        return self.odometry

    def take_over(self, other: FrameTrajectory, new_index: Mapping[int, int], but: int) -> None:
        """The frames of a map piece, whose keyframes have other indices here; not the one of stamp `but`, which is known here."""
        self.legs.take_over(other.legs, new_index)
        of_piece = [frame for frame in other._frames if frame[1] in new_index and frame[0] != but]
        self._frames.extend((stamp, new_index[keyframe], own) for stamp, keyframe, own in of_piece)

    def rescaled(self, ratios: Mapping[int, float]) -> None:
        """Keyframes and their depths have become larger by these ratios."""
        if self._newest is not None:
            keyframe, relative = self._newest
            relative = relative.copy()
            relative[:3, 3] *= ratios.get(keyframe, 1.0)
            self._newest = (keyframe, relative)

    def anchor(self, keyframe: int, relative: Pose | None = None) -> None:
        """The newest frame has become this keyframe, or lies so (4x4) in it: motion is measured from there on."""
        self._newest = (keyframe, np.eye(4) if relative is None else relative)

    def poses(
        self, keyframes: Mapping[int, Pose], at_most: int | None = None, units: Mapping[int, float] | None = None
    ) -> list[tuple[int, Pose]]:
        """[(stamp, camera to world 4x4)], by stamp; evenly thinned to `at_most`, the first and the last among them.

        Frames between two keyframes agree with both (`FrameLegs`). `units`: how many map units each keyframe's own unit is.
        """
        frames = sorted(self._frames, key=lambda entry: entry[0])
        if at_most is not None and len(frames) > at_most:
            frames = [frames[k] for k in np.linspace(0, len(frames) - 1, at_most).round().astype(int)]
        if not frames:
            return []
        found = self.legs.placed([frame[:2] for frame in frames], _relative(frames, units or {}), keyframes, units or {})
        return [(frame[0], pose) for frame, pose in zip(frames, found, strict=True)]

    def around(self, stamp: int, reach: int, keyframes: Mapping[int, Pose], units: Mapping[int, float]) -> list[tuple[int, Pose]]:
        """As `poses`, of the frames within `reach` nanoseconds of `stamp`, as they were tracked."""
        near = [frame for frame in self._frames if abs(frame[0] - stamp) <= reach]
        own = _relative(near, units)
        return [
            (frame[0], keyframes[frame[1]] @ pose) for frame, pose in sorted(zip(near, own, strict=True), key=lambda entry: entry[0][0])
        ]


def _relative(frames: Sequence[tuple[int, int, NDArray[np.float32]]], units: Mapping[int, float]) -> Pose:
    """[N, 4, 4] to their keyframes, map units."""
    own = np.tile(np.eye(4), (len(frames), 1, 1))
    for n, (_, keyframe, relative) in enumerate(frames):
        own[n, :3] = relative
        own[n, :3, 3] *= units.get(keyframe, 1.0)
    return own
