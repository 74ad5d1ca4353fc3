"""A camera: its size, pinhole intrinsics in pixels and distortion. Pixel centres lie at integers (as in ROS and OpenCV)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DistortionModel = Literal["pinhole", "plumb_bob", "rational_polynomial", "equidistant"]


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one camera. `assumed` says that nobody measured them (a guessed field of view)."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: DistortionModel = "pinhole"
    distortion: tuple[float, ...] = ()
    assumed: bool = False
