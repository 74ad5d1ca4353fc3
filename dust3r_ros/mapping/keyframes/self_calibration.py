"""What CameraInfo does not say of a camera, found out from the map's first keyframes: its lens where there is no CameraInfo, its readout.

A wrong focal length, a bent lens or leaning rows spoil depth, and with it everything that follows: what was mapped until then is made anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Calibration, Estimator, SelfCalibrating, Tokens
from dust3r_ros.geometry import Camera, straightened_image
from dust3r_ros.mapping.config import EstimatorConfig
from dust3r_ros.mapping.keyframes.keyframe_map import Growth, KeyframeMap
from dust3r_ros.mapping.keyframes.window import TRUSTED
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.types import Frame, Keyframe

log = logging.getLogger(__name__)

TurnAt = Callable[[int], NDArray[np.float64]]  # stamp of a frame in ns -> how the camera turned then (`geometry.rolling_shutter`)

TRIES = (5, 8, 12)  # keyframes with which a calibration is tried
SURE = 0.08  # relative sigma of the focal length up to which it is believed
NOTICEABLE = 1.0  # pixels of the working image: what moves no ray further is not worth a new map
MIN_READOUT = 0.004  # seconds, and
SURE_READOUT = 2.5  # sigmas, from which on the rows are believed to be read one after the other


@dataclass(frozen=True, eq=False)
class _Kept:
    """A keyframe of the map's beginning, as it came."""

    index: int
    stamp: int
    image: NDArray[np.uint8]  # not straightened
    tokens: Tokens
    is_measured: bool  # its intrinsics, by CameraInfo


class SelfCalibration:
    """Of one Mapper's camera. What it found out stays known when a new map begins."""

    def __init__(self, estimator: Estimator, config: EstimatorConfig, may_calibrate: bool = True) -> None:
        self._estimator, self._config = estimator, config
        is_able = isinstance(estimator, SelfCalibrating) and estimator.can_calibrate
        self._wanted = config.self_calibration if may_calibrate and is_able else "never"
        self._believed: Camera | None = None  # before it was calibrated
        self._calibrated: Camera | None = None
        self.readout = config.readout  # seconds from the camera's first row to the last
        self.restart()

    def restart(self) -> None:
        """A new map begins."""
        self._kept: list[_Kept] = []
        self.is_open = self._wanted != "never"

    def know(self, camera: Camera, readout: float = 0.0) -> None:
        """A saved map was loaded, whose newest keyframe this camera took. The map stays as it is.

        `readout`: of that camera, as it was found out; it counts where nobody says another one (`estimator.readout`).
        """
        self._close()
        if not self._config.readout and self._config.self_calibration != "never":
            self.readout = readout
        if not camera.assumed and self._calibrated is None:
            self._calibrated = camera

    def camera(self, frame: Frame) -> Camera:
        """That took the frame, as far as is known."""
        height, width = frame.image.shape[:2]
        given = frame.camera
        known = self._calibrated
        if known is not None and (known.width, known.height) == (width, height) and (given is None or given == self._believed):
            return known
        return given or Camera.from_fov(width, height, self._config.assumed_fov)

    def straight(self, image: NDArray[np.uint8], camera: Camera, turn: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The image as if all its rows had been read at once, while the camera turned so."""
        return straightened_image(image, camera, turn, self.readout) if self.readout and turn.any() else image

    def improved(
        self, keyframe_map: KeyframeMap, frame: Frame, tokens: Tokens, index: int, turn_at: TurnAt
    ) -> tuple[KeyframeMap, Growth] | None:
        """Keyframe `index` was just added; where that makes the camera known, the map made anew with it. None: all stays as it was."""
        if not self.is_open:
            return None
        is_measured = frame.camera is not None and self._wanted != "always"
        self._kept.append(_Kept(index, frame.stamp, frame.image, tokens, is_measured))
        if not self._concerns(keyframe_map):
            self._close()
            return None
        if len(self._kept) not in TRIES:
            return None
        turns = [turn_at(kept.stamp) for kept in self._kept]
        try:
            anew = self._tried(keyframe_map, turns)
        except Exception:  # of the estimator, whoever wrote it: the keyframe has its place already
            log.exception("the camera was not calibrated by %d keyframes: the map stays as it is", len(self._kept))
            anew = None
        if len(self._kept) >= TRIES[-1]:
            self._close()
        return anew

    def _concerns(self, keyframe_map: KeyframeMap) -> bool:
        """Whether this is still the beginning, and one camera's."""
        first = self._kept[0].tokens.source
        return first == self._kept[-1].tokens.source and set(keyframe_map.poses) <= {kept.index for kept in self._kept}

    def _tried(self, keyframe_map: KeyframeMap, turns: list[NDArray[np.float64]]) -> tuple[KeyframeMap, Growth] | None:
        if not isinstance(self._estimator, SelfCalibrating):
            return None
        is_measured = self._kept[-1].is_measured
        found = self._estimator.calibrate([kept.tokens for kept in self._kept], turns, is_measured)
        if found is None:
            return None
        lens_is_better = not is_measured and found.focal_sigma <= SURE and found.shift >= NOTICEABLE
        readout_is_better = abs(found.readout) >= max(MIN_READOUT, SURE_READOUT * found.readout_sigma)
        if not (lens_is_better or readout_is_better):
            return None
        before, readout = self._kept[0].tokens.source, self.readout
        camera = found.camera if lens_is_better else before
        self.readout = readout + found.readout if readout_is_better else readout
        shorter = before.fx / camera.fx
        turns = [turn * (shorter, shorter, 1.0) for turn in turns]  # they were measured with the camera as it was believed to be
        anew = None
        try:
            anew = self._made_anew(keyframe_map, camera, turns)
        finally:
            if anew is None:
                self.readout = readout
        if anew is None:
            return None
        if lens_is_better:
            self._believed, self._calibrated = self._believed or before, camera
        self._tell(before, found, lens_is_better, readout_is_better)
        return anew

    def _tell(self, before: Camera, found: Calibration, lens: bool, readout: bool) -> None:
        said = []
        if lens:
            sigma, bend = found.camera.fx * found.focal_sigma, found.camera.distortion
            said.append(f"focal length {found.camera.fx:.0f} +- {sigma:.0f} pixels ({before.fx:.0f} was believed)")
            said += [f"k1 {bend[0]:.3f} +- {found.k1_sigma:.3f}"] if bend else []
        if readout:
            said.append(f"{1000 * self.readout:.0f} +- {1000 * found.readout_sigma:.0f} ms from the first row to the last")
        log.info("camera calibrated from %d keyframes: %s; the map is made anew", len(self._kept), ", ".join(said))

    def _close(self) -> None:
        self.is_open, self._kept = False, []

    def _made_anew(self, old: KeyframeMap, camera: Camera, turns: list[NDArray[np.float64]]) -> tuple[KeyframeMap, Growth] | None:
        fresh, growth, encoded = old.empty(), None, []
        for kept, turn in zip(self._kept, turns, strict=True):
            tokens = self._estimator.encode(self.straight(kept.image, camera, turn), camera)
            encoded.append(replace(kept, tokens=tokens))
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
        self._kept = encoded
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
