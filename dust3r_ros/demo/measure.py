"""How far a recording is from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.demo.inputs import DemoError, TrueView
from dust3r_ros.demo.recording import Recording
from dust3r_ros.geometry import Similarity, procrustes
from dust3r_ros.mapping.config import MapConfig


@dataclass(frozen=True)
class DepthScore:
    """Over the confident pixels of all depth images whose truth is known, after one scale (the median ratio) for all of them."""

    images: int
    scale: float  # true metres in a map unit
    abs_rel: float  # mean of |estimate - truth| / truth
    median_rel: float
    coverage: float  # share of the pixels with a known truth that have a confident estimate


@dataclass(frozen=True, eq=False)
class PathScore:
    """Absolute trajectory error after the best similarity (Umeyama 1991)."""

    poses: int
    rmse: float  # m
    extent: float  # m, diagonal of the true path's bounding box
    to_truth: Similarity  # map to the truth's world

    @property
    def percent(self) -> float:
        return 100 * self.rmse / self.extent


@dataclass(frozen=True)
class Bounds:
    """What a sane run stays within; beyond it the demo fails."""

    abs_rel: float
    coverage: float
    path_percent: float = np.inf
    placed: float = 0.0  # share of the images that must have a pose


def depth_score(recording: Recording, truth: Sequence[TrueView], min_confidence: float = MapConfig().min_confidence) -> DepthScore:
    """Score all depth images of the recording, where they are at least so confident. Raises DemoError if none can be compared."""
    known: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for view in truth:
        if view.depth is None or view.stamp not in recording.depths:
            continue
        image = confident_depth(recording, view.stamp, min_confidence)
        if image.shape == view.depth.shape:
            known.append((image[view.depth > 0], view.depth[view.depth > 0]))
    if not known:
        raise DemoError(f"none of the {len(recording.depths)} depth images can be compared with the truth: nothing was mapped")
    estimate = np.concatenate([part for part, _ in known]).astype(np.float64)
    true = np.concatenate([part for _, part in known]).astype(np.float64)
    seen = np.isfinite(estimate) & (estimate > 0)
    if not seen.any():
        raise DemoError(f"all {len(known)} depth images are empty: nothing was mapped")
    scale = float(np.median(true[seen] / estimate[seen]))
    error = np.abs(estimate[seen] * scale - true[seen]) / true[seen]
    return DepthScore(len(known), scale, float(error.mean()), float(np.median(error)), float(seen.mean()))


def confident_depth(recording: Recording, stamp: int, min_confidence: float = MapConfig().min_confidence) -> NDArray[np.float32]:
    """A depth image (H, W) with 0 also where it is not confident."""
    depth, confidence = recording.depths[stamp], recording.confidences.get(stamp)
    if confidence is None or confidence.shape != depth.shape:
        return depth
    return np.where(confidence >= min_confidence, depth, np.float32(0))


def path_score(recording: Recording, truth: Sequence[TrueView]) -> PathScore:
    """Score the recorded camera positions. Raises DemoError if fewer than three of them can be compared."""
    true_poses = {view.stamp: view.pose for view in truth}
    matched = [(pose[:3, 3], true_poses[stamp][:3, 3]) for stamp, pose in recording.trajectory if stamp in true_poses]
    if len(matched) < 3:
        raise DemoError(f"only {len(matched)} of {len(truth)} images have a pose: nothing was mapped")
    estimated, true = (np.array(side) for side in zip(*matched, strict=True))
    to_truth = procrustes(estimated, true)
    residual = to_truth.apply(estimated) - true
    everything = np.array([pose[:3, 3] for pose in true_poses.values()])
    return PathScore(len(matched), float(np.sqrt((residual**2).sum(axis=1).mean())), _extent(everything), to_truth)


def _extent(points: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def complaints(bounds: Bounds, images: int, depth: DepthScore, path: PathScore | None) -> list[str]:
    """What lies outside the bounds, a line each; empty if the run is sane."""
    found = []
    if depth.abs_rel > bounds.abs_rel:
        found.append(f"depth error {depth.abs_rel:.3f} is over {bounds.abs_rel}")
    if depth.coverage < bounds.coverage:
        found.append(f"depth covers {depth.coverage:.0%} of the pixels, less than {bounds.coverage:.0%}")
    if path is not None and path.percent > bounds.path_percent:
        found.append(f"trajectory error {path.percent:.1f} % of the path's extent is over {bounds.path_percent} %")
    if path is not None and path.poses < bounds.placed * images:
        found.append(f"{path.poses} of {images} images have a pose, fewer than {bounds.placed:.0%}")
    return found
