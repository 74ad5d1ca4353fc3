"""What a lost camera does: how long it has been lost, when it looks for its place, and what it may believe."""

from __future__ import annotations

from dust3r_ros.estimators import Tokens
from dust3r_ros.mapping.keyframes.keyframe_map import KeyframeMap
from dust3r_ros.mapping.places.relocalisation import Relocalisation
from dust3r_ros.mapping.tracking.tracker import TrackedPose, Tracks

SECONDS_BETWEEN_SEARCHES = 0.2  # a search costs as much as a few keyframes
BRIEFLY, FEW = 2.0, 5  # seconds or frames for which it may still be by the newest keyframes, though it looks different there
TO_A_PIECE = 3.0  # seconds after which what is seen is mapped apart; and after which a piece's camera is lost for good, and another begins
GAP = 0.5  # seconds without a frame after which points are followed with doubt
MIN_INLIERS, MIN_OVERLAP = 0.5, 0.3  # of the points followed across the gap, to go on as if nothing had been


class Recovery:
    """Times are the images' own."""

    def __init__(self) -> None:
        self._seen: int | None = None
        self._since: int | None = None
        self._last_failure: int | None = None
        self._ambiguous = False
        self._frames = 0

    def seen(self, stamp: int) -> None:
        """The camera's place is known at this time."""
        self._seen, self._since, self._frames, self._last_failure, self._ambiguous = stamp, None, 0, None, False

    def seen_before(self, stamp: int) -> None:
        """Somebody else says that the place was known at this time: news only if it is newer than what is known."""
        if self._seen is None or stamp > self._seen:
            self.seen(stamp)

    def seconds(self, stamp: int) -> float:
        """Since the camera's place was last known; 0 if it is."""
        return 0.0 if self._since is None else (stamp - self._since) * 1e-9

    def lost(self, stamp: int) -> None:
        """The camera's place is not known at this time."""
        if self._since is None:
            self._since = stamp if self._seen is None else self._seen
        self._frames += 1

    def is_brief(self, stamp: int) -> bool:
        return self.seconds(stamp) <= BRIEFLY or self._frames <= FEW

    def believes(self, stamp: int, tracked: TrackedPose, tracks: Tracks) -> bool:
        """Whether points followed from before the gap may be gone on with."""
        if self._since is None and (self._seen is None or (stamp - self._seen) * 1e-9 <= GAP):
            return True
        return self.is_brief(stamp) and tracked.inliers >= MIN_INLIERS and tracks.overlap >= MIN_OVERLAP

    def may_search(self, stamp: int) -> bool:
        return self._last_failure is None or (stamp - self._last_failure) * 1e-9 >= SECONDS_BETWEEN_SEARCHES

    def may_join_newest(self, stamp: int) -> bool:
        """Whether the frame may be paired with the newest keyframes though none of them looks like it."""
        return self.is_brief(stamp) and not self._ambiguous

    def is_long(self, stamp: int) -> bool:
        return self.seconds(stamp) >= TO_A_PIECE

    def search(self, where: KeyframeMap, picture: Tokens, stamp: int) -> Relocalisation:
        """Look for the picture among all keyframes."""
        found = where.find(picture, moved_little=self.is_brief(stamp))
        self._ambiguous = found.ambiguous
        if found.where.pose is None:
            self._last_failure = stamp
        return found
