"""What an estimator may find out about a camera that nobody calibrated, from its pictures alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.protocol import Tokens
from dust3r_ros.geometry import Camera

PROBES = 9  # rays a side at which two cameras are compared


@dataclass(frozen=True)
class Calibration:
    """A camera as its pictures show it, with one sigma of what they leave open."""

    camera: Camera  # of the pictures as they come
    focal_sigma: float  # of the focal length, relative
    k1_sigma: float
    shift: float  # pixels of the working image, at most: how far the pictures' rays move against the camera that was believed
    readout: float  # seconds from the first row to the last, more than the pictures were straightened by
    readout_sigma: float  # infinite where nobody knows how the camera turned


@runtime_checkable
class SelfCalibrating(Protocol):
    """An estimator that may be able to calibrate a camera."""

    @property
    def can_calibrate(self) -> bool:
        """Whether it is: not every network heeds what it is told of a camera."""
        ...

    def calibrate(self, views: Sequence[Tokens], turns: Sequence[NDArray[np.float64]], is_measured: bool) -> Calibration | None:
        """From views of one camera, oldest first, that follow each other; None where they are too few or say too little.

        `turns`: [3] each, how the camera turned meanwhile (`geometry.rolling_shutter`), zero where nobody knows.
        `is_measured`: the camera's intrinsics are known, only its readout is asked for.
        """
        ...


def shift(before: Camera, after: Camera, working: Camera) -> float:
    """Pixels of the working image between where the two cameras see the same pixels of their picture, at most over a grid of it."""
    grid = np.stack(np.meshgrid(np.linspace(0, before.width - 1, PROBES), np.linspace(0, before.height - 1, PROBES)), -1)
    apart = before.unproject(grid)[..., :2] - after.unproject(grid)[..., :2]
    return float(np.nanmax(np.linalg.norm(apart, axis=-1))) * working.fx
