"""Points that hide in front of what the keyframes around see stay out of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.alignment import clean_confidences
from dust3r_ros.mapping.types import Keyframe

BESIDE = 3  # keyframes to each side that are asked
SIDE = 160  # pixels of the longer side on which they are compared: finer costs more and finds no more


def without_floaters(keyframes: Sequence[Keyframe], judged: Sequence[int]) -> list[Keyframe]:
    """The keyframes at the positions `judged`, with confidence 1 (nothing is known) where those beside them in the list see through.

    As `alignment.clean_confidences`, on about `SIDE` pixels; a verdict holds for all pixels around.
    """
    wanted = set(judged)
    asked = {m for n in wanted for m in _beside(n, len(keyframes))} | wanted
    seen = {n: _on_grid(keyframes[n]) for n in asked}
    order = sorted(asked)
    at = {n: k for k, n in enumerate(order)}
    cleaned = clean_confidences(
        [torch.from_numpy(seen[n][0]) for n in order],
        [torch.from_numpy(seen[n][1]) for n in order],
        np.stack([keyframes[n].pose for n in order]),
        [seen[n][2] for n in order],
        [seen[n][3] for n in order],
        [[at[m] for m in _beside(n, len(keyframes))] if n in wanted else [] for n in order],
    )
    return [_condemned(keyframes[n], seen[n][1], cleaned[at[n]].numpy()) for n in judged]


def _beside(n: int, count: int) -> list[int]:
    return [m for m in range(max(0, n - BESIDE), min(count, n + BESIDE + 1)) if m != n]


def _on_grid(keyframe: Keyframe) -> tuple[NDArray[np.float32], NDArray[np.float32], float, tuple[float, float]]:
    """Depth, confidence, focal length and principal point on a grid of its pixels."""
    step = _step(keyframe)
    first, camera = step // 2, keyframe.camera
    centre = (camera.cx - first) / step, (camera.cy - first) / step
    grid = slice(first, None, step)
    depth, confidence = (np.ascontiguousarray(values[grid, grid]) for values in (keyframe.depth, keyframe.confidence))
    return depth, confidence, camera.fx / step, centre


def _step(keyframe: Keyframe) -> int:
    return max(1, round(max(keyframe.depth.shape) / SIDE))


def _condemned(keyframe: Keyframe, before: NDArray[np.float32], after: NDArray[np.float32]) -> Keyframe:
    outvoted = ((before > 1) & (after <= 1)).astype(np.uint8)
    if not outvoted.any():
        return keyframe
    height, width = keyframe.depth.shape
    step = _step(keyframe)
    whole = cv2.resize(outvoted, (outvoted.shape[1] * step, outvoted.shape[0] * step), interpolation=cv2.INTER_NEAREST)
    whole = cv2.copyMakeBorder(whole, 0, max(0, height - whole.shape[0]), 0, max(0, width - whole.shape[1]), cv2.BORDER_REPLICATE)
    confidence = np.where(whole[:height, :width] > 0, np.float32(1), keyframe.confidence)
    return replace(keyframe, confidence=confidence)
