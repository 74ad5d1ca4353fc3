"""The estimator on frames that are no keyframes: each in a pair with the reference keyframe, whose depth it refines.

After Murai et al., MASt3R-SLAM, CVPR 2025, sections 3.3 and 3.4: a frame is tracked against the last keyframe by their pair, and the
keyframe's pointmap is a running mean. Points followed by Lucas-Kanade remain the prediction, and the judge of a pair.
"""

from __future__ import annotations

from dataclasses import replace

from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.geometry import inverse_pose
from dust3r_ros.mapping.following import Following
from dust3r_ros.mapping.keyframes.keyframe_map import KeyframeMap
from dust3r_ros.mapping.keyframes.self_calibration import SelfCalibration
from dust3r_ros.mapping.keyframes.window import Entry
from dust3r_ros.mapping.places.placing import place_picture
from dust3r_ros.mapping.shown import Shown
from dust3r_ros.mapping.tracking.frame_pair import FramePair, frame_by_pair
from dust3r_ros.mapping.tracking.keyframe_selection import Choice
from dust3r_ros.mapping.tracking.tracker import TrackedPose, points_seen_again
from dust3r_ros.mapping.tracking.two_poses import PairErrors, contradict, together
from dust3r_ros.mapping.types import Keyframe


def beside_cpu(estimator: Estimator) -> bool:
    """Whether it does its work elsewhere, and does not hold up tracking."""
    return bool(getattr(estimator, "beside_cpu", False))


def runs_offline(setting: str, estimator: Estimator) -> bool:
    """Whether `estimator.every_frame` means every frame where no camera waits: the same on the same machine, however busy."""
    return setting == "always" or (setting == "auto" and beside_cpu(estimator))


class EveryFrame:
    """Of one Mapper."""

    def __init__(self, estimator: Estimator, calibration: SelfCalibration) -> None:
        self._estimator, self._calibration, self._errors = estimator, calibration, PairErrors()

    def look(self, shown: Shown, keyframe_map: KeyframeMap, following: Following) -> tuple[Choice, TrackedPose | None]:
        """As `place`, and whether the frame is due as a keyframe then: not one whose points were lost."""
        placed = self.place(shown, keyframe_map, following)
        if shown.tracked is None and placed is not None:
            return Choice(False, "its points were lost: placed by its pair with the last keyframe"), placed
        return shown.choice, placed

    def place(self, shown: Shown, keyframe_map: KeyframeMap, following: Following) -> TrackedPose | None:
        """A frame's pose to the reference keyframe by their pair and by the points that were followed; by these if the pair says nothing.

        Where they agree, the keyframe's depth is refined and both poses count by their covariances. A pair that contradicts them is not
        believed. Where they are lost, the pair has to be verified both ways and by its looks, as when a lost camera is found, and points
        are followed from there on.
        """
        keyframe, tracked = following.keyframe, shown.tracked
        entry = None if keyframe is None else keyframe_map.window.get(keyframe.index)
        if keyframe is None or entry is None:
            return tracked
        camera, turn = shown.camera, following.turning.newest
        tokens = self._estimator.encode(self._calibration.straight(shown.frame.image, camera, turn), camera)
        if tracked is None or shown.tracks is None:
            return self._by_pair_alone(shown, tokens, keyframe, entry, following)
        said = self._estimated(tokens, keyframe, entry, tracked)
        by_pair = None if said is None else self._believed(said, following.uncorrected(tracked))
        if said is None or by_pair is None:
            return tracked
        keyframe_map.refine(keyframe.index, said.depth, said.confidence)
        by_points = following.followed_pose(shown.tracks, shown.tracked_camera, self._calibration.readout)
        if by_points is None:
            return tracked
        both = together(by_points, by_pair)
        following.correct(by_points.pose, both.pose)
        return both

    def _believed(self, said: FramePair, tracked: TrackedPose) -> TrackedPose | None:
        """The pair's pose with all its covariance; None if it contradicts the points that were followed."""
        assert said.tracked.covariance is not None
        by_pair = replace(said.tracked, covariance=said.tracked.covariance + self._errors.covariance(said.distance))
        self._errors = self._errors.learned(tracked, said.tracked, said.distance)
        return None if contradict(tracked, by_pair) else by_pair

    def _by_pair_alone(self, shown: Shown, tokens: Tokens, keyframe: Keyframe, entry: Entry, following: Following) -> TrackedPose | None:
        where = place_picture([keyframe], {keyframe.index: entry.tokens}, self._estimator, tokens, both_ways=True)
        if where.pose is None:
            return None
        relative = inverse_pose(keyframe.pose) @ where.pose
        following.follow_again(shown.grey, points_seen_again(shown.grey, keyframe, shown.tracked_camera, relative))
        return TrackedPose(relative, where.inliers)

    def _estimated(self, tokens: Tokens, keyframe: Keyframe, entry: Entry, tracked: TrackedPose) -> FramePair | None:
        index = keyframe.index
        own = index + 1  # any that is not the keyframe's
        for prediction in self._estimator.estimate({index: entry.tokens, own: tokens}, [(index, own)]):
            if (prediction.i, prediction.j) == (index, own):
                return frame_by_pair(keyframe, prediction, (entry.tokens.camera, tokens.camera), tracked.pose)
        return None
