"""What is true of a pair, and of an estimator's working image of one of its views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.demo.inputs import TrueView
from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import Tokens
from dust3r_ros.geometry import inverse_pose, transform_points

SAME_DEPTH = 0.1  # relative: within it a point that falls onto another view is what is seen there


class DataError(Dust3rError):
    """A data set that is not there, or a request that it cannot meet."""


@dataclass(frozen=True, eq=False)
class TruePair:
    """Two views of one scene; at least one of them with known depth."""

    first: TrueView
    second: TrueView


@dataclass(frozen=True, eq=False)
class WorkingTruth:
    """The truth at the pixels of a working image."""

    points: NDArray[np.float64]  # [h, w, 3] in the view's own camera, metres
    known: NDArray[np.bool_]  # [h, w]
    focal: float  # fx in pixels of the working image


def working_truth(view: TrueView, tokens: Tokens) -> WorkingTruth:
    """What the working image's pixels show: the depth of the picture's nearest pixel, along the true camera's ray of that pixel.

    `tokens` may come from an assumed camera: only where its working image lies in the picture is asked of it.
    """
    asked = tokens.source.project(tokens.camera.unproject(tokens.camera.pixel_grid()))
    inside = tokens.source.contains(np.nan_to_num(asked, nan=-9.0))
    nearest = np.where(inside[..., None], np.rint(asked), 0).astype(int)
    u, v = np.minimum(nearest[..., 0], view.camera.width - 1), np.minimum(nearest[..., 1], view.camera.height - 1)
    depth = np.zeros(inside.shape) if view.depth is None else np.where(inside, view.depth[v, u], 0.0)
    rays = view.camera.unproject(np.stack([u, v], axis=-1))
    known = (depth > 0) & np.isfinite(depth) & np.isfinite(rays).all(-1)
    points = np.where(known[..., None], rays * depth[..., None], 0.0)
    return WorkingTruth(points, known, view.camera.fx * tokens.camera.fx / tokens.source.fx)


def overlap(first: TrueView, second: TrueView, step: int = 8) -> float:
    """Share of the first view's known points that the second one sees, by its depth; every `step`-th pixel is asked."""
    if first.depth is None or second.depth is None:
        raise DataError("overlap of views without depth: give two whose depth is known")
    grid = first.camera.pixel_grid()[::step, ::step]
    depth = first.depth[::step, ::step]
    points = (first.camera.unproject(grid) * depth[..., None])[depth > 0]
    if not len(points):
        return 0.0
    moved = transform_points(inverse_pose(second.pose) @ first.pose, points)
    pixels = second.camera.project(moved)
    inside = np.isfinite(pixels).all(1) & second.camera.contains(np.nan_to_num(pixels, nan=-9.0))
    u, v = np.rint(pixels[inside]).astype(int).clip(0, (second.camera.width - 1, second.camera.height - 1)).T
    seen = second.depth[v, u]
    return float((np.abs(seen - moved[inside, 2]) < SAME_DEPTH * moved[inside, 2]).sum() / len(points))
