"""What passes between the thread that tracks the camera and the one on which the map grows; both ways it is never changed afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.following import Following, Pending
from dust3r_ros.mapping.tracking.keyframe_selection import Choice
from dust3r_ros.mapping.tracking.tracker import Tracks
from dust3r_ros.mapping.tracking.turning import Turn
from dust3r_ros.mapping.types import Keyframe

MAX_FOLLOWED = 160  # points at camera rate; offline there is time for more

Grey = NDArray[np.uint8]
Pose = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Followed:
    """A frame that the map is asked to look at, tracked already."""

    grey: Grey  # its tracking image
    tracks: Tracks | None  # points of the reference keyframe; None: the camera is lost, or there is no reference yet
    relative: Pose | None  # [4, 4] this camera to the reference's
    choice: Choice  # whether it is due as a keyframe
    seen: int | None  # stamp (ns) of the newest frame before it whose place was known
    pending: Sequence[Pending]  # frames from before there was depth
    recent: Sequence[tuple[int, Pose]] = ()  # stamps (ns) and poses of the frames just before it, to the reference
    with_pair: bool = False  # whether it is estimated with the reference where it is no keyframe


@dataclass(frozen=True, eq=False)
class Reference:
    """The keyframe whose points are followed, as the map has it now."""

    index: int
    keyframe: Keyframe | None  # None: it has no depth yet
    unit: float  # how many map units its own unit is
    grey: Grey | None = None  # a tracking image, and
    tracks: Tracks | None = None  # the keyframe's points in it; None: those that are followed already
    relative: Pose | None = None  # [4, 4] that image's camera to the keyframe's
    own: Grey | None = None  # the keyframe's own tracking image
    turn: Turn | None = None  # how the camera turned when it took the keyframe; None: yet to be seen
    offset: Pose | None = None  # [4, 4] by which pairs have corrected what its points say


def taken_over(following: Following, followed: Followed) -> Tracks | None:
    """Go on from what was followed elsewhere: the points in the newest frame."""
    if followed.tracks is not None:
        following.tracker.go_on(followed.grey, followed.tracks)
        following.relative, following.turning.recent = followed.relative, followed.recent
    return followed.tracks


def reference_of(following: Following, unit: float, before: Tracks | None) -> Reference | None:
    """What is to be followed now. `before`: the points that were; if they still are, they are not handed over again."""
    if following.reference is None:
        return None
    now = following.tracker.now
    turn, offset = following.turning.told, following.offset
    if now is None or now[1] is before:
        return Reference(following.reference, following.keyframe, unit, turn=turn, offset=offset)
    own = following.tracker.keyframe_image
    return Reference(following.reference, following.keyframe, unit, now[0], thinned(now[1]), following.relative, own, turn, offset)


def thinned(tracks: Tracks) -> Tracks:
    """No more points than can be followed at camera rate, of all qualities alike: the best may all be in one corner of the picture."""
    if len(tracks) <= MAX_FOLLOWED:
        return tracks
    some = np.linspace(0, len(tracks) - 1, MAX_FOLLOWED).round().astype(int)
    return Tracks(tracks.keyframe[some], tracks.current[some], tracks.overlap)
