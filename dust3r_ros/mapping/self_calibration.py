"""The camera of images that come without CameraInfo: guessed at first, then calibrated from the map's first keyframes.

A wrong focal length or a bent lens spoils depth, and with it everything that follows: what was mapped with the guess is made anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Calibration, Estimator, SelfCalibrating, Tokens
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import EstimatorConfig
from dust3r_ros.mapping.keyframe_map import Growth, KeyframeMap
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.types import Frame, Keyframe
from dust3r_ros.mapping.window import TRUSTED

log = logging.getLogger(__name__)

TRIES = (5, 8, 12)  # keyframes with which a calibration is tried
SURE = 0.08  # relative sigma of the focal length up to which it is believed
NOTICEABLE = 1.0  # pixels of the working image: what moves no ray further is not worth a new map


@dataclass(frozen=True, eq=False)
class _Kept:
    """A keyframe of the map's beginning, as it came."""

    index: int
    stamp: int
    image: NDArray[np.uint8]
    tokens: Tokens


class SelfCalibration:
    """Of one Mapper's camera. What it found out stays known when a new map begins."""

    def __init__(self, estimator: Estimator, config: EstimatorConfig, may_calibrate: bool = True) -> None:
        self._estimator, self._config = estimator, config
        self._wanted = config.self_calibration if may_calibrate and isinstance(estimator, SelfCalibrating) else "never"
        self._believed: Camera | None = None  # before it was calibrated
        self._calibrated: Camera | None = None
        self.restart()

    def restart(self) -> None:
        """A new map begins."""
        self._kept: list[_Kept] = []
        self._is_open = self._wanted != "never"

    def know(self, keyframes: Iterable[Keyframe]) -> None:
        """A saved map was loaded: it knows the camera that it was made with, and stays as it is."""
        self._is_open, self._kept = False, []
        measured = [keyframe.source for keyframe in keyframes if not keyframe.source.assumed]
        if measured and self._calibrated is None:
            self._calibrated = measured[-1]

    def camera(self, frame: Frame) -> Camera:
        """That took the frame, as far as is known."""
        height, width = frame.image.shape[:2]
        given = frame.camera
        known = self._calibrated
        if known is not None and (known.width, known.height) == (width, height) and (given is None or given == self._believed):
            return known
        return given or Camera.from_fov(width, height, self._config.assumed_fov)

    def improved(self, keyframe_map: KeyframeMap, frame: Frame, tokens: Tokens, index: int) -> tuple[KeyframeMap, Growth] | None:
        """Keyframe `index` was just added; where that makes the camera known, the map made anew with it. None: all stays as it was."""
        if not self._is_open:
            return None
        self._kept.append(_Kept(index, frame.stamp, frame.image, tokens))
        if not self._concerns(frame, keyframe_map):
            self._close()
            return None
        if len(self._kept) not in TRIES:
            return None
        found = self._estimator.calibrate([kept.tokens for kept in self._kept]) if isinstance(self._estimator, SelfCalibrating) else None
        anew = None
        if found is not None and found.focal_sigma <= SURE and found.shift >= NOTICEABLE:
            anew = self._made_anew(keyframe_map, found)
        if len(self._kept) >= TRIES[-1]:
            self._close()
        return anew

    def _concerns(self, frame: Frame, keyframe_map: KeyframeMap) -> bool:
        """Whether this is still the beginning, and nobody knows the camera better."""
        asked = frame.camera is None or self._wanted == "always"
        first = self._kept[0].tokens.source
        return asked and first == self._kept[-1].tokens.source and set(keyframe_map.poses) <= {kept.index for kept in self._kept}

    def _close(self) -> None:
        self._is_open, self._kept = False, []

    def _made_anew(self, old: KeyframeMap, found: Calibration) -> tuple[KeyframeMap, Growth] | None:
        fresh, growth, encoded = old.empty(), None, []
        for kept in self._kept:
            tokens = self._estimator.encode(kept.image, found.camera)
            encoded.append(_Kept(kept.index, kept.stamp, kept.image, tokens))
            fresh.skip_to(kept.index)
            if kept is self._kept[0]:
                fresh.begin(kept.stamp, tokens)
            else:
                growth = fresh.grow(kept.stamp, tokens, Stopwatch())
                if growth is None:
                    return None
        if growth is None:
            return None
        fresh.stand_for(old, _sizes(old, fresh))
        was = self._kept[0].tokens.source
        log.info(
            "calibrated from %d keyframes: focal length %.0f +- %.0f pixels (%.0f was believed), k1 %.3f +- %.3f; the map is made anew",
            len(self._kept),
            found.camera.fx,
            found.camera.fx * found.focal_sigma,
            was.fx,
            found.camera.distortion[0],
            found.k1_sigma,
        )
        self._believed = was if self._believed is None else self._believed
        self._kept, self._calibrated = encoded, found.camera
        keyframes = tuple(fresh.keyframes)
        return fresh, Growth(growth.index, growth.pairs, keyframes, growth.loops, growth.predictions)


def _sizes(old: KeyframeMap, fresh: KeyframeMap) -> dict[int, float]:
    """How much deeper each keyframe has become, by the medians of what is known of it."""
    sizes = {}
    for keyframe in fresh.keyframes:
        before = old.keyframe(keyframe.index)
        if before is not None:
            sizes[keyframe.index] = _median_depth(keyframe) / _median_depth(before)
    return sizes


def _median_depth(keyframe: Keyframe) -> float:
    known = (keyframe.depth > 0) & (keyframe.confidence >= TRUSTED)
    return float(np.median(keyframe.depth[known if known.any() else keyframe.depth > 0]))
