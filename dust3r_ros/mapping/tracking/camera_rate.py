"""Points followed from image to image at camera rate: by no more of a pyramid than they moved of late, and back by way of the keyframe.

What is followed forth only and found again in the keyframe needs no way back to the image before (`tracker.placed_against`).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.tracking.tracker import MAX_RETURN_ERROR, Tracks, compared

WINDOW = (15, 15)  # pixels about a point that are compared
REACH = 7.0  # pixels that a point may move at the finest level of the pyramid; each level doubles them
MOST_LEVEL = 4
FASTER = 2.0  # times as far as in the image before, and
MORE = 3.0  # pixels beyond that, a point may move
SURE = 0.8  # share of the points below which they may have moved farther than that
FAST = 0.9  # share of the points that have moved no farther than Tracks.motion says
MAX_STEPS = 6

Grey = NDArray[np.uint8]
Points = NDArray[np.float32]
Mask = NDArray[np.bool_]


def step(before: Grey, tracks: Tracks, grey: Grey, keyframe: Grey | None = None) -> Tracks:
    """Points followed from one tracking image into the next. `keyframe`: its own, in which they lie where they were chosen."""
    if not len(tracks) or before.shape != grey.shape:
        return Tracks(tracks.keyframe[:0], tracks.current[:0], 0.0)
    own = keyframe if keyframe is not None and keyframe.shape == grey.shape else None
    level = _level(tracks.motion)
    after, kept = _followed(before, tracks, grey, own, level)
    if level < MOST_LEVEL and kept.mean() < SURE:
        after, kept = _followed(before, tracks, grey, own, MOST_LEVEL)
    return Tracks(tracks.keyframe[kept], after[kept], tracks.overlap * float(kept.mean()), _motion((after - tracks.current)[kept]))


def caught_up(grey: Grey, tracks: Tracks, newer: Sequence[Grey]) -> tuple[Grey, Tracks]:
    """Points followed through the tracking images that came since, in at most MAX_STEPS steps: else a busy machine would never catch up."""
    stride = -(-len(newer) // MAX_STEPS) if newer else 1
    for image in newer[::-1][::stride][::-1]:
        grey, tracks = image, step(grey, tracks, image)
        if stride > 1:
            tracks = Tracks(tracks.keyframe, tracks.current, tracks.overlap)  # they moved as far as they do in several images
    return grey, tracks


def _followed(before: Grey, tracks: Tracks, grey: Grey, own: Grey | None, level: int) -> tuple[Points, Mask]:
    """Where the points lie in `grey` and which of them [N] are believed."""
    height, width = grey.shape
    after, found, _ = cv2.calcOpticalFlowPyrLK(before, grey, tracks.current, None, winSize=WINDOW, maxLevel=level)
    kept = found.ravel() == 1
    doubtful = kept
    if own is not None:
        there, agrees = compared(own, grey, tracks.keyframe, after)
        agrees &= kept
        after, doubtful = np.where(agrees[:, None], there, after), kept & ~agrees
    if doubtful.any():
        kept = kept.copy()
        kept[doubtful] = _come_back(before, tracks.current[doubtful], grey, after[doubtful])
    kept = kept & (after >= 0).all(axis=1) & (after[:, 0] <= width - 1) & (after[:, 1] <= height - 1)
    return after, kept


def _come_back(before: Grey, points: Points, grey: Grey, after: Points) -> Mask:
    """Which points [N] lead back to where they were; the way back begins there, as images at camera rate are much alike."""
    back, found, _ = cv2.calcOpticalFlowPyrLK(
        grey, before, after, points.copy(), winSize=WINDOW, maxLevel=1, flags=cv2.OPTFLOW_USE_INITIAL_FLOW
    )
    return np.asarray((found.ravel() == 1) & (np.abs(back - points).max(axis=1) < MAX_RETURN_ERROR))


def _level(motion: float | None) -> int:
    """Of the pyramid, the coarsest that points need that moved so many pixels in the step before; None: not known."""
    if motion is None:
        return MOST_LEVEL
    wanted = np.log2((FASTER * motion + MORE) / REACH)
    return int(np.clip(np.ceil(wanted), 0, MOST_LEVEL))


def _motion(moved: Points) -> float | None:
    """Pixels that most of the points have moved."""
    if not len(moved):
        return None
    far = np.abs(moved).max(axis=1)
    at = int(FAST * (len(far) - 1))
    return float(np.partition(far, at)[at])
