"""What a map takes from sensors that measure metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.mapping.scale.scale_estimator import ScaleEstimator
from dust3r_ros.mapping.scale.scale_fusion import MapScale


class Measured:
    """Part of whoever has a map."""

    _scale: ScaleEstimator

    @property
    def scale(self) -> MapScale:
        """Whether a map unit is a metre, who says so, and how sure that is."""
        return self._scale.scale

    def add_odometry(self, stamp: int, pose: ArrayLike) -> None:
        """Where the camera was at `stamp` (ns) by another odometry: its pose [4, 4] in that odometry's frame, metres.

        At any rate, in order of time, before or after the images. Raises ScaleError for what is no pose.
        """
        self._scale.add_odometry(stamp, pose)

    def add_depth(self, stamp: int, depth: NDArray[np.floating]) -> None:
        """What a sensor measured at the image of `stamp` (ns): [H, W] metres along z, aligned with the image, 0 where nothing is known.

        Dense or a few pixels (`depth_of_ranges`), before or after the image. Raises DepthError for what is no such array.
        """
        self._scale.add_depth(stamp, depth)

    def set_up(self, up: ArrayLike) -> None:
        """[3] which way is up in the camera's frame, for `scale.camera_height`; without it `scale.camera_pitch` says so."""
        self._scale.set_up(up)
