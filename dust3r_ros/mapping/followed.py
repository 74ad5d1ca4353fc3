"""What passes between the thread that tracks the camera and the one on which the map grows; both ways it is never changed afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.following import Following, Pending
from dust3r_ros.mapping.tracking.keyframe_selection import Choice
from dust3r_ros.mapping.tracking.tracker import Tracks, follow_points
from dust3r_ros.mapping.tracking.turning import Turn
from dust3r_ros.mapping.types import Keyframe

MAX_FOLLOWED = 160  # points at camera rate; offline there is time for more
MAX_STEPS = 6

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
    turn = following.turning.told
    if now is None or now[1] is before:
        return Reference(following.reference, following.keyframe, unit, turn=turn)
    own = following.tracker.keyframe_image
    return Reference(following.reference, following.keyframe, unit, now[0], thinned(now[1]), following.relative, own, turn)


def thinned(tracks: Tracks) -> Tracks:
    """No more points than can be followed at camera rate, of all qualities alike: the best may all be in one corner of the picture."""
    if len(tracks) <= MAX_FOLLOWED:
        return tracks
    some = np.linspace(0, len(tracks) - 1, MAX_FOLLOWED).round().astype(int)
    return Tracks(tracks.keyframe[some], tracks.current[some], tracks.overlap)


def caught_up(grey: Grey, tracks: Tracks, newer: Sequence[Grey]) -> tuple[Grey, Tracks]:
    """Points followed through the tracking images that came since, in at most MAX_STEPS steps: else a busy machine would never catch up."""
    stride = -(-len(newer) // MAX_STEPS) if newer else 1
    for image in newer[::-1][::stride][::-1]:
        grey, tracks = image, step(grey, tracks, image)
    return grey, tracks


def step(before: Grey, tracks: Tracks, grey: Grey) -> Tracks:
    """Points followed from one tracking image into the next."""
    if not len(tracks) or before.shape != grey.shape:
        return Tracks(tracks.keyframe[:0], tracks.current[:0], 0.0)
    after, kept = follow_points(before, grey, tracks.current, quickly=True)
    return Tracks(tracks.keyframe[kept], after[kept], tracks.overlap * float(kept.mean()))
