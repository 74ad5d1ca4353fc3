"""A sequence through a place that repeats itself: each picture of the first period is rendered once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.simulation.sequence import Path, Place, SimulatedSequence


class RepeatedSequence(SimulatedSequence):
    """View k sees what view k modulo `steps` sees, from where the path has it; the sensor's noise is each view's own."""

    def __init__(self, frames: int, width: int, height: int, seed: int, place: Place, path: Path, steps: int) -> None:
        super().__init__(frames, width, height, seed, place, path)
        self.steps = steps
        self._first: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def depth(self, index: int) -> NDArray[np.float32]:
        """[H, W], as the view's."""
        return self._seen(self._checked(index))[1]

    def _seen(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        at = index % self.steps
        if at not in self._first:
            self._first[at] = super()._seen(at)
        return self._first[at]
