"""When the graph of keyframes is aligned and how much of it: what a keyframe costs must not grow with the map."""

from __future__ import annotations

NEWEST = 200  # keyframes that are aligned without the rest: without a loop nothing moves the older ones
PACE = 100  # a graph of so many times as many keyframes waits one keyframe longer for its next alignment as a whole


class AlignmentSchedule:
    """The whole graph after a loop, though not more often than its size allows; its newest part in between and every so often."""

    def __init__(self) -> None:
        self.is_due = False
        self._since_any = self._since_whole = 0  # keyframes
        self._owed = False  # a loop came in after the whole graph was aligned
        self._keyframes = 0

    @property
    def newest(self) -> int | None:
        """How many of the newest keyframes the next alignment is of; None: all."""
        return None if self._is_whole else NEWEST

    def keyframe(self, loops: bool, every: int, keyframes: int) -> None:
        """The graph has grown by a keyframe, with `loops` or without. `every`: keyframes between two alignments; 0: after loops only."""
        self._keyframes = keyframes
        self._since_any += 1
        self._since_whole += 1
        self._owed = self._owed or loops
        self.is_due = self.is_due or loops or self._is_whole or bool(every and self._since_any >= every)

    def began(self) -> None:
        """It is being aligned, as far as `newest` said."""
        if self._is_whole:
            self._since_whole, self._owed = 0, False
        self._since_any, self.is_due = 0, False

    @property
    def _is_whole(self) -> bool:
        return self._owed and self._since_whole >= self._keyframes // PACE
