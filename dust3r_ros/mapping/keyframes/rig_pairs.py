"""Which keyframes of a rig are paired: inside each camera, across the cameras at one moment, and across them in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment import Mount
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Camera, inverse_pose, transform_points
from dust3r_ros.mapping.places.loops import believable
from dust3r_ros.mapping.types import Keyframe

TRUSTED = 1.5  # a confidence from which a pixel counts as seen
LOOKED_AT = 400  # pixels of a keyframe, at about the same distances
MIN_SHARED, MIN_SEEN_BEFORE = 0.2, 0.35  # of a keyframe's points in another camera's view: at one moment, and of an older one


@dataclass(frozen=True, eq=False)
class Placing:
    """How a keyframe comes into the map."""

    name: str = ""  # of its camera, where there are several
    partners: tuple[int, ...] | None = None  # keyframes of the window that it is paired with; None: as the scene graph says
    doubtful: frozenset[int] = field(default_factory=frozenset)  # those of them that may show something else: cameras that look elsewhere
    mount: Mount | None = None  # where it is, by a keyframe of the same moment

    def believed(self, predictions: Sequence[PairPrediction]) -> list[PairPrediction]:
        """Pairs with doubtful partners stay if both directions know enough of both views."""
        if not self.doubtful:
            return list(predictions)
        kept = []
        for one in predictions:
            doubtful = self.doubtful & {one.i, one.j}
            if not doubtful or believable([p for p in predictions if {p.i, p.j} == {one.i, one.j}]):
                kept.append(one)
        return kept


def share_seen(keyframe: Keyframe, camera: Camera, pose: NDArray[np.float64]) -> float:
    """Share of the keyframe's trusted points in the view of a camera at `pose` (camera to world, 4x4), hidden ones too."""
    rows, columns = np.nonzero((keyframe.depth > 0) & (keyframe.confidence >= TRUSTED))
    if not len(rows):
        return 0.0
    chosen = np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).astype(np.int64)
    rows, columns = rows[chosen], columns[chosen]
    own = keyframe.camera.unproject(np.stack([columns, rows], -1)) * keyframe.depth[rows, columns, None]
    seen = transform_points(inverse_pose(pose) @ keyframe.pose, own)
    pixels = camera.project(seen)
    return float((np.isfinite(pixels).all(1) & camera.contains(np.where(np.isfinite(pixels), pixels, -1e6)) & (seen[:, 2] > 0)).mean())


def partners_across(
    camera: Camera, pose: NDArray[np.float64], same_moment: Sequence[Keyframe], before: Sequence[Keyframe]
) -> tuple[int, ...]:
    """Keyframes of other cameras that a new one, at `pose` with the working image's `camera`, shares a view with.

    `same_moment`: all that overlap enough. `before`: the one that shows the most of it.
    """
    found = [k.index for k in same_moment if share_seen(k, camera, pose) >= MIN_SHARED]
    seen = [(share_seen(k, camera, pose), k.index) for k in before]
    best = max(seen, default=(0.0, -1))
    return (*found, best[1]) if best[0] >= MIN_SEEN_BEFORE else tuple(found)
