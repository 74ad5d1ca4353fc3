"""A robot's odometry beside the map: how far it went between keyframes, in windows long enough for the way to outweigh the noise."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LENGTH = 0.25  # metres from end to end of a window
MAX_GAP = 250_000_000  # ns between two readings that are still joined by a straight line
BACK = 1_000_000_000  # ns back in time that are more than readings out of order
MAX_READINGS, MAX_WAITING, MAX_WINDOWS = 5000, 1000, 512


class OdometryWindows:
    """Readings at any rate, before or after the images; windows between the keyframes that they tell the place of.

    A window ends only when the odometry has moved `LENGTH` from where it began: standing still and turning on the spot make none.
    """

    def __init__(self) -> None:
        self._readings: deque[tuple[int, Array]] = deque(maxlen=MAX_READINGS)
        self.restart()

    def restart(self) -> None:
        """The map begins anew; the readings go on."""
        self._waiting: deque[tuple[int, int]] = deque(maxlen=MAX_WAITING)
        self._anchor: tuple[int, Array] | None = None
        self._windows: list[tuple[int, int, float]] = []

    def add(self, stamp: int, position: Array) -> None:
        """Where the camera was (metres, [3]) at `stamp` (ns), in the odometry's frame."""
        if self._readings and stamp <= self._readings[-1][0]:
            if self._readings[-1][0] - stamp < BACK:
                return
            self._readings.clear()  # the clock was set
            self._anchor = None
        self._readings.append((stamp, position))

    def keyframe(self, index: int, stamp: int) -> None:
        """A new keyframe of the map, in order of time."""
        self._waiting.append((index, stamp))

    def lengths(self, poses: Mapping[int, Array]) -> tuple[Array, Array]:
        """Of each window, oldest first: metres [N] by the odometry, and map units [N] between the same keyframes as they lie now."""
        self._settle()
        known = [(i, j, length) for i, j, length in self._windows if i in poses and j in poses]
        metric = np.array([length for _, _, length in known])
        mapped = np.array([float(np.linalg.norm(poses[j][:3, 3] - poses[i][:3, 3])) for i, j, _ in known])
        return metric, mapped

    def measured(self) -> list[tuple[int, int, float]]:
        """(keyframe, later keyframe, metres by the odometry) of each window, oldest first."""
        self._settle()
        return list(self._windows)

    def _settle(self) -> None:
        """Keyframes that wait for readings on both sides of their stamp."""
        stamps = [stamp for stamp, _ in self._readings]
        newest = stamps[-1] if stamps else -1
        due = [(index, stamp) for index, stamp in self._waiting if stamp <= newest]
        self._waiting = deque(((index, stamp) for index, stamp in self._waiting if stamp > newest), maxlen=MAX_WAITING)
        for index, stamp in due:
            after = bisect_left(stamps, stamp)
            later = self._readings[after]
            if later[0] == stamp:
                self._reach(index, later[1])
            elif after > 0 and later[0] - self._readings[after - 1][0] <= MAX_GAP:
                before = self._readings[after - 1]
                share = (stamp - before[0]) / (later[0] - before[0])
                self._reach(index, (1 - share) * before[1] + share * later[1])

    def _reach(self, index: int, position: Array) -> None:
        if self._anchor is None:
            self._anchor = index, position
            return
        length = float(np.linalg.norm(position - self._anchor[1]))
        if length < LENGTH:
            return
        self._windows.append((self._anchor[0], index, length))
        self._anchor = index, position
        if len(self._windows) > MAX_WINDOWS:  # what stays is spread over the whole way
            del self._windows[: MAX_WINDOWS // 2 : 2]
