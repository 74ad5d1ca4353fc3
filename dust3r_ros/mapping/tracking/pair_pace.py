"""Whether the estimator keeps up with a pair for every frame: by the time that pairs took against the time between frames."""

from __future__ import annotations

import logging
from collections import deque

import numpy as np

log = logging.getLogger(__name__)

KEEPS_UP, FALLS_BEHIND = 0.5, 0.8  # of the time between two frames: begins below the one, and ends above the other
PAIRS = 5  # that the time is taken from
FRAMES = 15  # that their distance is taken from
TRY_AGAIN = 10.0  # seconds of the images' own time until an estimator that was too slow is given another pair


class PairPace:
    """For a live camera. Stamps are the images' own; how long a pair took is told: no clock is looked at here."""

    def __init__(self, setting: str, beside_cpu: bool) -> None:
        """`setting`: `estimator.every_frame`; `beside_cpu`: the estimator does not compete with tracking for the CPU."""
        self._setting, self._beside_cpu = setting, beside_cpu
        self._stamps: deque[int] = deque(maxlen=FRAMES + 1)
        self._took: deque[float] = deque(maxlen=PAIRS)
        self._keeps_up: bool | None = None  # None: not known yet
        self._asked: int | None = None

    def frame(self, stamp: int) -> None:
        """A frame has come, at `stamp` (ns)."""
        self._stamps.append(stamp)

    def is_wanted(self) -> bool:
        """Whether the newest frame's pair should be estimated, if nothing else is."""
        if self._setting != "auto":
            return self._setting == "always"
        if not self._beside_cpu or len(self._stamps) < 2:
            return False
        newest = self._stamps[-1]
        if self._keeps_up is False and self._asked is not None and (newest - self._asked) * 1e-9 < TRY_AGAIN:
            return False
        self._asked = newest
        return True

    def took(self, seconds: float) -> None:
        """A pair has been estimated, and all that goes with it."""
        self._took.append(seconds)
        if self._setting != "auto" or len(self._took) < PAIRS or len(self._stamps) < 2:
            return
        between = float(np.median(np.diff(np.array(self._stamps)))) * 1e-9
        pair = float(np.median(self._took))
        keeps_up = pair <= (FALLS_BEHIND if self._keeps_up else KEEPS_UP) * between
        if keeps_up is not self._keeps_up:
            log.info(
                "a pair takes %.0f ms, frames come every %.0f ms: the estimator runs on %s",
                1000 * pair,
                1000 * between,
                "every frame" if keeps_up else "keyframes alone",
            )
        self._keeps_up = keeps_up
