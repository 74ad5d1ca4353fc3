"""Which pixels of two views show the same point: flow that one camera motion explains, and rays from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.dense import Flow
from dust3r_ros.estimators.flow.optical import match, unknown
from dust3r_ros.estimators.flow.pair_pose import epipolar_distance, pair_pose
from dust3r_ros.estimators.flow.view import View, smaller_eigenvalue

Floats = NDArray[np.float64]

GRID = 8  # pixels between the points that poses are computed from, at a working image 320 pixels long
MIN_TEXTURE = 2.0  # smaller eigenvalue of the structure tensor (grey levels squared) of such a point
MAX_ERROR = 1.0  # pixels forward-backward of such a point
MIN_OVERLAP = 0.15  # share of consistent pixels under which two views do not see each other
SURE_OVERLAP = 0.5  # from here on the flow cannot be chance
EXPLAINED_WITHIN = 1.0  # pixels off the epipolar line
MIN_EXPLAINED = 0.8  # share of the points: views of one scene give over 0.9, views of two scenes under 0.75


def flow_between(first: View, second: View) -> Flow:
    """Flow from `first` to `second`; the way back comes with it. Kept in the views, by the other's content.

    It is unknown everywhere if too little of it is consistent, or if no motion of a camera explains it: two pictures of different places.
    """
    if second.digest not in first.flows:
        forth, back = match(first, second)
        if not _believable(first, second, forth, back):
            forth, back = unknown(first), unknown(second)
        first.flows[second.digest] = forth
        second.flows[first.digest] = back
    return first.flows[second.digest]


def _believable(first: View, second: View, forth: Flow, back: Flow) -> bool:
    overlap = min(forth.overlap, back.overlap)
    if overlap < MIN_OVERLAP or overlap >= SURE_OVERLAP:
        return overlap >= SURE_OVERLAP
    rays_1, rays_2 = corresponding_rays(first, second, forth)
    focal = second.focal
    found = pair_pose(rays_1, rays_2, focal)
    if found is None:
        return False
    if not found.translation.any():
        return True
    distance = epipolar_distance(rays_1, rays_2, found.rotation, found.translation, focal)
    return float(np.mean(distance < EXPLAINED_WITHIN)) >= MIN_EXPLAINED


def corresponding_rays(view: View, other: View, flow: Flow) -> tuple[Floats, Floats]:
    """Rays [N, 3], z = 1, of about a thousand textured pixels and of where they lie in the other view."""
    rows, columns = _pose_grid(view, flow)
    seen = normalised(flow, rows, columns, other)
    return view.rays[rows, columns].astype(float), np.concatenate([seen, np.ones((len(seen), 1))], 1)


def _pose_grid(view: View, flow: Flow) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of about a thousand textured pixels with a consistent flow."""
    height, width = view.gray.shape
    step = max(2, round(GRID * max(height, width) / 320))
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
    textured = smaller_eigenvalue(view.tensor[:, rows, columns]) > MIN_TEXTURE
    kept = textured & (flow.error[rows, columns] < MAX_ERROR)
    return rows[kept], columns[kept]


def normalised(flow: Flow, rows: NDArray[np.int64], columns: NDArray[np.int64], other: View) -> Floats:
    """[N, 2] x / z and y / z in the other view of the pixels (rows, columns) of the first."""
    camera = other.camera
    x, y = flow.x[rows, columns].astype(float), flow.y[rows, columns].astype(float)
    return np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy], -1)
