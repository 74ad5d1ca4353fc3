"""One depth per keyframe from the triangulations with all its neighbours: robust fusion, a weak smooth prior, confidence."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.dense import DepthMap
from dust3r_ros.estimators.flow.triangulation import Triangulation
from dust3r_ros.estimators.flow.view import View

REWEIGHTINGS = 3
LONELY_FACTOR = 1.7  # sigma of a pixel that fewer than two neighbours agree on
GUIDE_RADII = (4, 16)  # pixels
GUIDE_EPSILON = 30.0  # grey levels squared
PRIOR_SIGMA = 0.15  # of the smooth surface, relative: weak, it mostly fills
CONFIDENCE_AT = 0.25  # relative sigma of depth at confidence 1
FLOOR_SIGMA = 0.01
MAX_CONFIDENCE = 20.0
EDGE_WINDOW, EDGE_RATIO = 5, 1.15  # pixels; farthest to nearest depth in them from which on they are an edge
EDGE_CONFIDENCE = np.float32(1.5)  # at most, there


def fuse(view: View, triangulations: Sequence[Triangulation], typical: float) -> DepthMap:
    """`typical`: the inverse depth to say where nothing at all is known."""
    shape = view.gray.shape
    nothing = DepthMap(np.full(shape, 1 / typical, np.float32), np.ones(shape, np.float32))
    if not triangulations:
        return nothing
    rho = np.stack([t.inverse_depth for t in triangulations])
    precision = np.stack([t.precision for t in triangulations])
    best = np.argmax(precision, axis=0)[None]
    fused = np.take_along_axis(rho, best, 0)[0]
    for _ in range(REWEIGHTINGS if len(rho) > 1 else 0):
        weight = precision / (1 + precision * (rho - fused) ** 2)
        total = weight.sum(axis=0)
        fused = np.where(total > 0, (weight * rho).sum(axis=0) / np.maximum(total, 1e-30), fused)
    agreement = 1 / (1 + precision * (rho - fused) ** 2)
    total = (precision * agreement).sum(axis=0)
    agreeing = np.sum((agreement > 0.25) & (precision > 0), axis=0)
    known = (total > 0) & (fused > 0)
    if np.count_nonzero(known) < 16:
        return nothing
    variance = np.where(known, 1 / np.maximum(total, 1e-30), 0)
    variance = np.where(agreeing < 2, variance * LONELY_FACTOR**2, variance)
    weight = np.where(known, fused * fused / np.maximum(variance + (FLOOR_SIGMA * fused) ** 2, 1e-30), 0)  # 1 / relative variance
    value = np.where(known, fused, 0).astype(np.float32)
    sigma = np.sqrt(np.where(known, 1 / np.maximum(weight, 1e-30), 1e6))
    confidence = np.where(known, np.clip(CONFIDENCE_AT / sigma, 1, MAX_CONFIDENCE), 1).astype(np.float32)
    smooth, support = guided_surface(view.gray, value, np.minimum(weight, 1e4).astype(np.float32), GUIDE_RADII[0])
    wide, _ = guided_surface(view.gray, value, np.minimum(weight, 1e4).astype(np.float32), GUIDE_RADII[1])
    typical = float(np.median(value[known]))
    surface = np.where(support > 1.0, smooth, wide)
    surface = np.clip(surface, typical * 0.05, typical * 20)
    prior = np.where(known, 1 / PRIOR_SIGMA**2, 1.0)
    settled = np.where(known, (weight * value + prior * surface) / (weight + prior), surface)
    depth = (1 / np.maximum(settled, typical * 0.02)).astype(np.float32)
    return DepthMap(depth, np.where(_at_an_edge(depth), np.minimum(confidence, EDGE_CONFIDENCE), confidence))


def _at_an_edge(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels beside a jump of depth: flow is smooth across it, and what lies between the two surfaces is nowhere."""
    window = np.ones((EDGE_WINDOW, EDGE_WINDOW), np.uint8)
    return np.asarray(cv2.dilate(depth, window) > EDGE_RATIO * cv2.erode(depth, window))


def guided_surface(
    gray: NDArray[np.uint8], value: NDArray[np.float32], weight: NDArray[np.float32], radius: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A guided filter (He et al., ECCV 2010) whose local linear models are weighted by certainty: the surface and its mean weight."""
    size = (2 * radius + 1, 2 * radius + 1)
    guide = gray.astype(np.float32)

    def mean(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        return cv2.boxFilter(plane, cv2.CV_32F, size)

    total = mean(weight)
    safe = total + np.float32(1e-6)
    mean_i, mean_v = mean(weight * guide) / safe, mean(weight * value) / safe
    var_i = mean(weight * guide * guide) / safe - mean_i * mean_i
    cov = mean(weight * guide * value) / safe - mean_i * mean_v
    slope = cov / (np.maximum(var_i, 0) + np.float32(GUIDE_EPSILON))
    offset = mean_v - slope * mean_i
    models = mean(total) + np.float32(1e-6)
    return mean(total * slope) / models * guide + mean(total * offset) / models, total
