"""A frame as the camera was followed to it: its points, where it is by them, and whether it is due as a keyframe."""

from __future__ import annotations

from dataclasses import dataclass

from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.followed import Followed, Grey, taken_over
from dust3r_ros.mapping.following import Following
from dust3r_ros.mapping.recovery import Recovery
from dust3r_ros.mapping.tracking.keyframe_selection import Choice, KeyframeSelector
from dust3r_ros.mapping.tracking.tracker import TrackedPose, Tracks, parallax, tracking_image
from dust3r_ros.mapping.types import Frame


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame, and how it was tracked."""

    frame: Frame
    camera: Camera
    grey: Grey  # its tracking image
    tracked_camera: Camera  # of that
    tracks: Tracks | None  # points of the reference keyframe; None: they are lost, or there is no reference yet
    tracked: TrackedPose | None  # by these points
    choice: Choice


def shown(
    frame: Frame,
    camera: Camera,
    following: Following,
    recovery: Recovery,
    selector: KeyframeSelector,
    readout: float,
    followed: Followed | None,
) -> Shown:
    """Follow the camera to its newest frame. `followed`: somebody else has done so, and chosen."""
    grey = tracking_image(frame.image) if followed is None else followed.grey
    tracked_camera = following.camera(camera).resized(grey.shape[1], grey.shape[0])
    if followed is not None:
        if followed.seen is not None:
            recovery.seen_before(followed.seen)
        tracks = taken_over(following, followed)
    else:
        tracks = following.tracker.track(grey) if following.tracker.running else None
    tracked = following.pose_of(tracks, tracked_camera, frame.stamp, readout)
    if tracked is not None and tracks is not None and not recovery.believes(frame.stamp, tracked, tracks):
        tracked = None
    if followed is not None:
        choice = followed.choice
    else:
        moved, overlap = (None, 0.0) if tracks is None else (parallax(tracks, tracked_camera), tracks.overlap)
        new = following.new_share(tracked, tracked_camera)
        choice = selector.choose(frame.stamp, grey, moved, overlap, following.baseline(tracked), new)
    return Shown(frame, camera, grey, tracked_camera, tracks, tracked, choice)
