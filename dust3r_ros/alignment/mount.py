"""Where a keyframe's camera is in the camera of another keyframe of the same moment: known, as on a rig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dust3r_ros.alignment.link import Link
from dust3r_ros.alignment.priors import MotionPrior
from dust3r_ros.alignment.problem import Array
from dust3r_ros.geometry import Similarity

SAME_SIZE = 0.02  # log: how differently two keyframes of one moment may be scaled


@dataclass(frozen=True, eq=False)
class Mount:
    """Where a keyframe's camera is in the camera of another keyframe of the same moment."""

    on: int  # that keyframe
    pose: Array  # [4, 4] this camera to that one; world units, which are metres then
    turn: float = 0.003  # rad, one standard deviation
    place: float = 0.005  # world units, one standard deviation

    def prior(self, keyframe: int) -> MotionPrior:
        return MotionPrior(self.on, keyframe, self.pose, np.diag([self.turn**2] * 3 + [self.place**2] * 3))

    def link(self, keyframe: int, frames: Mapping[int, Similarity]) -> Link:
        """The same for the whole graph. `frames`: of both keyframes, own frame and units to the world's."""
        there, own = frames[self.on].scale, frames[keyframe].scale
        relative = Similarity(own / there, self.pose[:3, :3].copy(), self.pose[:3, 3] / there)
        deviation = np.array([self.turn] * 3 + [self.place / own] * 3 + [SAME_SIZE])
        i, j = (self.on, keyframe) if self.on < keyframe else (keyframe, self.on)
        assert (i, j) == (self.on, keyframe), "a keyframe is mounted on an earlier one"
        return Link(i, j, relative, np.diag(1.0 / deviation**2))
