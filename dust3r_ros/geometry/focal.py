"""The focal length that a pointmap was seen with."""

from __future__ import annotations

from typing import Any

import numpy as np

from dust3r_ros.geometry.errors import GeometryError

ROUNDS = 100
CONVERGED = 1e-9  # relative change
MIN_DISTANCE = 1e-8  # pixels: keeps a point that fits exactly from taking all the weight
MIN_POINTS = 3
MAX_RAY = np.tan(np.radians(80.0))  # no flat picture sees further out: such a point is wrong, and would outweigh a thousand others


def focal_from_pointmap(points: Any, weights: Any = None, principal_point: tuple[float, float] | None = None) -> float:
    """The focal length in pixels (fx = fy) that minimises sum w |(u - cx, v - cy) - f (X, Y) / Z|, by Weiszfeld's iteration.

    DUSt3R (CVPR 2024), section 3.3. points: [H, W, 3] in the camera's own frame, numpy or torch; weights: [H, W] >= 0, or None for
    all equal; principal_point: (cx, cy) in pixels whose centres lie at integers, by default the image's middle ((W - 1) / 2, (H - 1) / 2).
    Points behind the camera, over 80 degrees off its axis or not finite are left out. Raises GeometryError where fewer than 3 points are
    left or they say nothing (all on the axis).
    """
    values = _array(points)
    if values.ndim != 3 or values.shape[2] != 3:
        raise GeometryError(f"focal length from a pointmap of shape {values.shape}: give (H, W, 3)")
    height, width = values.shape[:2]
    weight = np.ones((height, width)) if weights is None else _array(weights)
    if weight.shape != (height, width):
        raise GeometryError(
            f"focal length from a pointmap of {width}x{height} with weights of shape {weight.shape}: give ({height}, {width})"
        )
    cx, cy = ((width - 1) / 2, (height - 1) / 2) if principal_point is None else principal_point
    used = np.isfinite(values).all(-1) & (values[..., 2] > 0) & (weight > 0) & np.isfinite(weight)
    v, u = np.nonzero(used)
    pixel = np.stack([u - cx, v - cy], axis=-1)
    with np.errstate(over="ignore"):
        ray = values[used][:, :2] / values[used][:, 2:]
    near = np.abs(ray).max(axis=1, initial=0.0) < MAX_RAY
    pixel, ray, w = pixel[near], ray[near], weight[used][near]
    along, square = (pixel * ray).sum(-1), (ray * ray).sum(-1)
    if len(w) < MIN_POINTS or not (w @ square > 0 and np.isfinite(w @ square)):
        raise GeometryError(
            f"focal length from {len(w)} usable points is not determined: give a pointmap with points in front of the camera"
        )
    focal = float(w @ along / (w @ square))
    for _ in range(ROUNDS):
        say = w / np.maximum(np.linalg.norm(pixel - focal * ray, axis=-1), MIN_DISTANCE)
        previous, focal = focal, float(say @ along / (say @ square))
        if abs(focal - previous) <= CONVERGED * abs(focal):
            break
    if not (np.isfinite(focal) and focal > 0):
        raise GeometryError(f"focal length from a pointmap came out as {focal:g}: the points do not belong to this image's pixels")
    return focal


def _array(values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    if hasattr(values, "detach"):  # a tensor, wherever it lives; torch need not be imported to ask
        values = values.detach().cpu().numpy()
    return np.asarray(values, np.float64)
