"""Keeps what is known of the map's scale, says when it is sure enough, and by how much the map has to grow to be in metres."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.alignment import Length
from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.mapping.config import ScaleConfig
from dust3r_ros.mapping.scale.depth_readings import DepthError, DepthReadings
from dust3r_ros.mapping.scale.ground_plane import ground_plane, up_of_pitch
from dust3r_ros.mapping.scale.metric_scale import scale_of_depths, scale_of_ratios
from dust3r_ros.mapping.scale.odometry_windows import OdometryWindows
from dust3r_ros.mapping.scale.scale_fusion import NONE, MapScale, SourceScale, fused
from dust3r_ros.mapping.types import Keyframe

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

MIN_WINDOWS, MIN_KEYFRAMES = 6, 4  # of odometry; that were measured by anything else
MAX_MEASURED = 512  # keyframes of each source that are remembered
WORTHWHILE, CERTAIN = 0.005, 0.5  # a metric map is corrected beyond this share, and beyond this many standard deviations
NEWEST = 3  # keyframes whose ground is looked for: older ones hardly change
PLANE_CONFIDENCE = 1.5


class ScaleError(Dust3rError):
    """A metric measurement that cannot be used."""


class ScaleEstimator:
    """Metric measurements in, the map's scale out. It never claims one without a source. Not thread-safe: the Mapper's."""

    def __init__(self, config: ScaleConfig, metric_network: bool = False) -> None:
        """`metric_network`: the estimator's pointmaps are in metres, more or less."""
        self.config, self._metric_network = config, metric_network
        self._odometry, self._depths = OdometryWindows(), DepthReadings()
        self._up: Array | None = None
        self._contradicting: tuple[str, ...] = ()
        self._said_unaligned = False
        self.restart()

    def configure(self, config: ScaleConfig) -> None:
        """Go on with new settings. Another camera height or pitch: what was measured by the one before counts no more."""
        before, self.config = self.config, config
        if (config.camera_height, config.camera_pitch) != (before.camera_height, before.camera_pitch):
            self._ratios["height"].clear()

    def restart(self) -> None:
        """The map begins anew. Readings that came before its images stay."""
        self._odometry.restart()
        self.scale = MapScale()
        self._factor: float | None = None
        self._known: set[int] = set()
        self._depth_of: dict[int, NDArray[np.float32]] = {}  # as it was when the keyframe was measured last
        self._ratios: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in ("depth", "height", "network", "rig")}
        self._saved: SourceScale | None = None

    def resume(self, scale: MapScale) -> None:
        """Go on with a map that was saved."""
        self.scale = scale
        if scale.is_metric:
            self._saved = SourceScale(0.0, scale.uncertainty if math.isfinite(scale.uncertainty) else 0.05)
            self._saved_source = scale.source

    # ---- what is measured --------------------------------------------------------------------------------------------------------------

    def add_odometry(self, stamp: int, pose: ArrayLike) -> None:
        """The camera's pose [4, 4] in an odometry frame, metres; any rate, before or after the images. Raises ScaleError."""
        values = np.asarray(pose, np.float64)
        if values.shape != (4, 4) or not np.isfinite(values).all():
            raise ScaleError(f"odometry of shape {values.shape} at {stamp * 1e-9:.3f} s is no pose: give a finite 4x4 matrix")
        if self._uses("odometry"):
            self._odometry.add(stamp, values[:3, 3].copy())

    def add_depth(self, stamp: int, depth: NDArray[np.floating]) -> None:
        """Measured depth [H, W], see `DepthReadings.add`. Raises DepthError."""
        if self._uses("depth"):
            self._depths.add(stamp, depth)

    def set_up(self, up: ArrayLike) -> None:
        """[3] which way is up in the camera's frame, where a robot's model says so; else `scale.camera_pitch` does. Raises ScaleError."""
        values = np.asarray(up, np.float64)
        if values.shape != (3,) or not np.isfinite(values).all() or not np.linalg.norm(values) > 1e-6:
            raise ScaleError(f"'up' is {values.tolist()}: give 3 finite numbers that are not all 0")
        self._up = values

    def add_rig(self, keyframe: int, ratio: float, sigma: float) -> None:
        """By a rig's known baselines at a keyframe: metres for one of its own units, and the standard deviation of the logarithm."""
        if self._uses("rig"):
            self._ratios["rig"][keyframe] = ratio, sigma

    def observe(
        self,
        keyframes: Sequence[Keyframe],
        predictions: Sequence[PairPrediction],
        poses: Mapping[int, Array],
        units: Mapping[int, float],
    ) -> None:
        """The map has a new keyframe: `keyframes` are it and those that it corrected, `predictions` its pairs.

        poses: of all keyframes, camera to world; units: how many map units a keyframe's own unit is, 1 where none is given.
        """
        if self.config.source == NONE:
            return
        for keyframe in keyframes:
            if keyframe.index not in self._known:
                self._known.add(keyframe.index)
                self._odometry.keyframe(keyframe.index, keyframe.stamp)
        for keyframe in keyframes:
            changed = self._depth_of.get(keyframe.index) is not keyframe.depth
            if changed or keyframe.index not in self._ratios["depth"]:  # a reading may come late
                self._measure_depth(keyframe, units.get(keyframe.index, 1.0))
        for keyframe in keyframes[-NEWEST:]:
            if self._depth_of.get(keyframe.index) is not keyframe.depth:
                self._measure_height(keyframe, units.get(keyframe.index, 1.0))
        window = {keyframe.index: keyframe for keyframe in keyframes}
        self._depth_of = {index: keyframe.depth for index, keyframe in window.items()}
        if self._uses("network") and self._metric_network:
            self._compare(predictions, window, units)
        for ratios in self._ratios.values():
            while len(ratios) > MAX_MEASURED:  # every other of the older half, so that what stays is spread over the whole way
                for index in sorted(ratios)[: MAX_MEASURED // 2 : 2]:
                    del ratios[index]
        self._conclude(poses, units)

    @property
    def lengths(self) -> list[Length]:
        """Ways between keyframes by the odometry, metres: what keeps the map's scale even along the way."""
        return [Length(*window) for window in self._odometry.measured()] if self._uses("odometry") else []

    # ---- what follows ------------------------------------------------------------------------------------------------------------------

    def take_factor(self) -> float | None:
        """By how much the map has to grow now, if it has to; whoever takes it makes it so."""
        factor, self._factor = self._factor, None
        if factor is not None and self._saved is not None:
            self._saved = SourceScale(self._saved.log_scale - math.log(factor), self._saved.deviation)
        return factor

    def _conclude(self, poses: Mapping[int, Array], units: Mapping[int, float]) -> None:
        found = {name: one for name in ("odometry", *self._ratios) if (one := self._says(name, poses, units)) is not None}
        if not found:
            return  # what was known stays known
        if self._saved is not None:
            found["saved"] = self._saved
        now = fused(found)
        assert now is not None
        if now.contradicting and now.contradicting != self._contradicting:
            log.warning(
                "scale: %s and %s contradict each other, the latter is left out: check its calibration, or set scale.source",
                now.scale.source,
                ", ".join(now.contradicting),
            )
        self._contradicting = now.contradicting
        first = not self.scale.is_metric
        source = now.scale.source
        if self._saved is not None and "saved" in source.split("+"):
            names = [name for name in source.split("+") if name != "saved"]
            source = "+".join(dict.fromkeys([*self._saved_source.split("+"), *names]))
        self.scale = MapScale(source, now.scale.uncertainty)
        if first or abs(now.log_scale) > max(WORTHWHILE, CERTAIN * now.deviation):
            self._factor = math.exp(now.log_scale)
            log.info("scale from %s: a map unit is %.4g m, give or take %.1f %%", source, self._factor, 100 * self.scale.uncertainty)

    def _says(self, name: str, poses: Mapping[int, Array], units: Mapping[int, float]) -> SourceScale | None:
        """What a source says, if it is sure enough of it."""
        if not self._uses(name):
            return None
        if name == "odometry":
            metric, mapped = self._odometry.lengths(poses)
            if len(metric) < MIN_WINDOWS or metric.sum() < self.config.min_path:
                return None
            found = scale_of_ratios(metric, mapped)
            enough = MIN_WINDOWS
        else:
            order = sorted(self._ratios[name])
            if len(order) < MIN_KEYFRAMES:
                return None
            ratio, sigma = np.array([self._ratios[name][index] for index in order]).T
            # Keyframes differ by more than chance within each of them: the map is not equally large everywhere.
            found = scale_of_ratios(ratio, np.array([units.get(index, 1.0) for index in order]), np.hypot(sigma, 0.01))
            enough = MIN_KEYFRAMES
        if found is None or found.samples < enough or found.uncertainty > self.config.max_uncertainty:
            return None
        if name == "rig":  # neighbours err alike, so that their spread says too little
            least = 1.0 / math.sqrt(float((1.0 / sigma**2).sum()))
            return SourceScale(math.log(found.scale), max(found.uncertainty, least))
        return SourceScale(math.log(found.scale), found.uncertainty)

    # ---- how -------------------------------------------------------------------------------------------------------------------------

    def _uses(self, name: str) -> bool:
        return self.config.source in ("auto", name)

    def _measure_depth(self, keyframe: Keyframe, unit: float) -> None:
        """Ratios are kept as metres per the keyframe's own unit, which corrections of the map do not change."""
        reading = self._depths.at(keyframe.stamp) if self._uses("depth") else None
        if reading is None:
            return
        try:
            found = scale_of_depths(*reading.beside(keyframe))
        except DepthError as error:
            if not self._said_unaligned:
                self._said_unaligned = True
                log.warning("not used for the scale: %s", error)
            return
        if found is not None:
            self._ratios["depth"][keyframe.index] = found[0] * unit, found[1]

    def _measure_height(self, keyframe: Keyframe, unit: float) -> None:
        if not self._uses("height") or self.config.camera_height <= 0:
            return
        up = self._up if self._up is not None else up_of_pitch(math.radians(self.config.camera_pitch))
        seen = (keyframe.depth > 0) & (keyframe.confidence >= PLANE_CONFIDENCE)
        plane = ground_plane(keyframe.camera.rays()[seen] * keyframe.depth[seen][:, None], up, seed=keyframe.index)
        if plane is not None:
            self._ratios["height"][keyframe.index] = self.config.camera_height / plane.height * unit, plane.uncertainty

    def _compare(self, predictions: Sequence[PairPrediction], window: Mapping[int, Keyframe], units: Mapping[int, float]) -> None:
        """What a metric network says of the newest keyframe, beside what the map made of it."""
        newest = max(window, default=None)
        said = []
        for prediction in predictions:
            keyframe = window.get(prediction.i)
            if newest not in (prediction.i, prediction.j) or keyframe is None:
                continue
            sure = prediction.confidence_i.numpy() >= PLANE_CONFIDENCE
            if sure.shape != keyframe.depth.shape:
                continue
            metric = np.where(sure, prediction.points_i[..., 2].numpy(), 0.0)
            found = scale_of_depths(metric.astype(np.float64), keyframe.depth.astype(np.float64))
            if found is not None:
                said.append(math.log(found[0]))
        if said and newest is not None:
            spread = float(np.std(said)) if len(said) > 2 else 0.1
            ratio = math.exp(float(np.median(said))) * units.get(newest, 1.0)
            self._ratios["network"][newest] = ratio, max(spread / math.sqrt(len(said)), 0.01)
