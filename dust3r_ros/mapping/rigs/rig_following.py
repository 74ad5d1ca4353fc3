"""The cameras of a rig between keyframes: each follows its own points, and all of them together say where the rig is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, RigPose, Sight, inverse_pose, solve_rig_pnp, transform_points
from dust3r_ros.mapping.following import Following, Pose
from dust3r_ros.mapping.keyframes.keyframe_map import KeyframeMap
from dust3r_ros.mapping.keyframes.rig_pairs import share_seen
from dust3r_ros.mapping.rigs.rig import Rig
from dust3r_ros.mapping.tracking.odometry_covariance import pnp_covariance
from dust3r_ros.mapping.tracking.tracker import (
    MIN_INLIERS,
    MIN_POINTS,
    THRESHOLD,
    TrackedPose,
    Tracker,
    Tracks,
    points_seen_again,
    points_with_depth,
)
from dust3r_ros.mapping.types import Frame

Array = NDArray[np.float64]

FRAMES_BETWEEN_LOOKS = 10  # of a camera that lost its points while others know where the rig is
NEAREST = 30  # keyframes, whichever camera's, among which one is looked for whose points a camera may follow
MIN_SHARE = 0.3  # of a keyframe's points in view, to follow them again


@dataclass(frozen=True, eq=False)
class Look:
    """One camera's part of a set."""

    frame: Frame
    camera: Camera
    grey: NDArray[np.uint8]  # the tracking image
    tracked_camera: Camera  # of the tracking image


@dataclass(eq=False)
class Eye:
    """One camera: its tracker, and the keyframe whose points it follows."""

    tracker: Tracker = field(default_factory=Tracker)
    reference: int | None = None
    blind_for: int = 0  # frames


class RigFollowing(Following):
    """`pose` is that of the rig's leading camera, the one that began the map; the others are fixed to it.

    The others count from when the map is metric (`mounted`): before, nobody knows how far from the leader they are in map units.
    """

    def __init__(self, keyframe_map: KeyframeMap, rig: Rig) -> None:
        super().__init__(keyframe_map)
        self._map: KeyframeMap = keyframe_map
        self.rig, self.lead, self.mounted = rig, "", False
        self.eyes: dict[str, Eye] = {}
        self._lead_then: Pose = np.eye(4)  # where the leader was in the reference keyframe when that was made
        self.agreeing: dict[str, float] = {}  # by camera that was followed: share of its points that agree with the newest pose

    def baseline(self, tracked: TrackedPose | None) -> float | None:
        """From where the leader was at the reference keyframe, which may be another camera's."""
        keyframe = self.keyframe
        if keyframe is None or tracked is None:
            return super().baseline(tracked)
        return float(np.linalg.norm(tracked.pose[:3, 3] - self._lead_then[:3, 3]) / np.median(keyframe.depth[keyframe.depth > 0]))

    def rescaled(self, ratios: Mapping[int, float]) -> None:
        super().rescaled(ratios)
        if self.reference is not None and self.reference in ratios:
            self._lead_then = self._lead_then.copy()
            self._lead_then[:3, 3] *= ratios[self.reference]

    def eye(self, name: str) -> Eye:
        if name not in self.eyes:
            self.eyes[name] = Eye(self.tracker if name == self.lead else Tracker())
        return self.eyes[name]

    def begin(self, name: str, look: Look) -> bool:
        """This camera leads; False if it sees nothing to follow."""
        self.lead, self.eyes = name, {}
        return self.start(look.grey)

    def track(self, looks: Mapping[str, Look]) -> dict[str, Tracks]:
        """Follow each camera's points into its newest picture."""
        return {name: self.eye(name).tracker.track(look.grey) for name, look in looks.items() if self.eye(name).tracker.running}

    def hold(self, looks: Mapping[str, Look]) -> None:
        """The newest pictures led nowhere."""
        for name in looks:
            self.eye(name).tracker.hold()

    def rig_pose(self, tracks: Mapping[str, Tracks], looks: Mapping[str, Look]) -> TrackedPose | None:
        """Where the leading camera is, to the reference keyframe's, by what all cameras see."""
        self.agreeing = {}
        keyframe = self.keyframe
        if keyframe is None:
            return None
        sights: dict[str, Sight] = {}
        for name, seen in tracks.items():
            own = self._map.keyframe(index) if (index := self.eye(name).reference) is not None else None
            camera = looks[name].tracked_camera
            if own is None or not (self.mounted or name == self.lead) or name not in self.rig:
                continue
            known = points_with_depth(seen, own, camera)
            if known is not None:
                points = transform_points(own.pose, known[0])
                mount = self.rig.between(name, self.lead)
                sights[name] = Sight(points, np.asarray(known[1], np.float64), camera, mount, THRESHOLD * camera.width)
        if not sights:
            return None
        guess = None if self.relative is None else keyframe.pose @ self.relative
        found = solve_rig_pnp(list(sights.values()), guess)
        if found is None or found.share < MIN_INLIERS:
            return None
        self.agreeing = {name: float(agree.mean()) for name, agree in zip(sights, found.inliers, strict=True)}
        return TrackedPose(inverse_pose(keyframe.pose) @ found.pose, found.share, rig_covariance(list(sights.values()), found))

    def look_again(self, looks: Mapping[str, Look], tracks: Mapping[str, Tracks], pose: Pose) -> None:
        """Cameras that lost their points follow those of a keyframe that they see, now and then. `pose`: the leader's to the world."""
        for name, look in looks.items():
            eye = self.eye(name)
            eye.blind_for = 0 if name in tracks and len(tracks[name]) >= MIN_POINTS else eye.blind_for + 1
            if self.mounted and name in self.rig and eye.blind_for % FRAMES_BETWEEN_LOOKS == 1:
                self.find_points(name, look, pose)

    def find_points(self, name: str, look: Look, pose: Pose) -> bool:
        """Follow the points of the keyframe that shows most of what this camera sees; whether there are any."""
        own = pose @ self.rig.between(name, self.lead)
        there = sorted(self._map.standpoints.values(), key=lambda s: (float(np.linalg.norm(s.pose[:3, 3] - own[:3, 3])), -s.index))
        near = [keyframe for one in there[:NEAREST] if (keyframe := self._map.keyframe(one.index)) is not None]
        share, _, best = max(((share_seen(k, look.tracked_camera, own), k.index, k) for k in near), default=(0.0, -1, None))
        if best is None or share < MIN_SHARE:
            return False
        seen = points_seen_again(look.grey, best, look.tracked_camera, inverse_pose(best.pose) @ own)
        if len(seen) < MIN_POINTS:
            return False
        eye = self.eye(name)
        eye.reference = best.index
        eye.tracker.go_on(look.grey, seen)
        return True

    def refer_to_set(self, stamp: int, pilot: str, keyframes: Mapping[str, int], looks: Mapping[str, Look], had_pose: bool) -> None:
        """The newest pictures have become keyframes (index by camera): their points are followed from now on.

        The rig's pose is the pilot's from now on, who was aligned first.
        """
        index = keyframes[pilot]
        relative = self.rig.between(self.lead, pilot) if pilot != self.lead else np.eye(4)
        if not had_pose:
            self._stand(stamp, index, relative)
            self.trajectory.advance(index, relative, self._map.poses)
        self.trajectory.anchor(index, relative)
        self.reference, self.relative, self._lead_then = index, relative, relative
        for name, own in keyframes.items():
            eye = self.eye(name)
            eye.reference = own
            eye.tracker.start(looks[name].grey)

    def found_at(self, index: int, pose: Pose, stamp: int, looks: Mapping[str, Look]) -> Pose:
        """A rig that was lost: the leader is at `pose` (camera to world), near keyframe `index`; its pose to that keyframe."""
        keyframe = self._map.keyframe(index)
        assert keyframe is not None
        relative = inverse_pose(keyframe.pose) @ pose
        self.reference, self._lead_then = index, relative
        for name, look in looks.items():
            if name == self.lead or (self.mounted and name in self.rig):
                self.find_points(name, look, pose)
        self._stand(stamp, index, relative)
        self.trajectory.found_again(index, relative, self._map.poses)
        return relative


def rig_covariance(sights: list[Sight], found: RigPose) -> Array:
    """[6, 6] of the rig's pose, as `pnp_covariance` has it: what each camera says alone, carried to the rig and added up."""
    information = np.zeros((6, 6))
    for sight, agree, error in zip(sights, found.inliers, found.errors_px, strict=True):
        if int(agree.sum()) < MIN_POINTS:
            continue
        pose = found.pose @ sight.mount
        own = pnp_covariance(sight.points[agree], sight.camera, pose, error, float(agree.mean()))
        to_camera = inverse_pose(sight.mount)
        rotation, position = to_camera[:3, :3], to_camera[:3, 3]
        adjoint = np.zeros((6, 6))  # an increment on the rig's right to one on the camera's right
        adjoint[:3, :3] = adjoint[3:, 3:] = rotation
        adjoint[3:, :3] = np.cross(position, rotation, axisb=0, axisc=0)
        information += adjoint.T @ np.linalg.inv(own) @ adjoint
    return np.asarray(np.linalg.pinv(information)) if information.any() else np.eye(6)
