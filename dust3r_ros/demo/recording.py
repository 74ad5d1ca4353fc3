"""What came out of a run over one bag, whichever way it ran: live through the node, or offline through the Mapper."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.types import PointCloud


@dataclass(frozen=True, eq=False)
class Recording:
    """In the axes of the first keyframe's camera (x right, y down, z forward), in map units."""

    depths: dict[int, NDArray[np.float32]]  # stamp in ns -> [H, W] depth along z in the camera's own pixels, map units, 0 unknown
    confidences: dict[int, NDArray[np.float32]]  # stamp in ns -> [H, W] >= 1
    trajectory: list[tuple[int, NDArray[np.float64]]]  # (stamp in ns, [4, 4] camera to world), corrected, by stamp
    cloud: PointCloud | None  # the whole map
    keyframes: list[tuple[int, NDArray[np.float64]]]  # (stamp in ns, [4, 4] camera to world), corrected, oldest first
    frames: int = 0  # that were looked at
    rate: float = 0.0  # frames a second while they came
    seconds: dict[str, float] = field(default_factory=dict)  # mean time of a stage when it was gone through
