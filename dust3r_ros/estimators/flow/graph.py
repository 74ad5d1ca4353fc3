"""Which views see each other, and what the flows between them say about points of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.bundle import Observations
from dust3r_ros.estimators.flow.optical import Flow, flow_between
from dust3r_ros.estimators.flow.triangulation import BASE_SIGMA, TEXTURE_SIGMA
from dust3r_ros.estimators.flow.view import View, smaller_eigenvalue

Floats = NDArray[np.float64]

POSE_GRID = 8  # pixels between the points of the pair pose, at a working image 320 pixels long
POSE_TEXTURE = 2.0  # smaller eigenvalue of the structure tensor (grey levels squared) of a point that poses are computed from
MAX_ERROR = 1.0  # pixels forward-backward of such a point
MIN_OVERLAP = 0.1  # share of consistent pixels under which two views do not see each other
MIN_ANCHORS = 12


@dataclass(eq=False)
class Graph:
    """Views that see each other, and their anchors' observations."""

    views: Sequence[View]
    flows: dict[tuple[int, int], Flow]  # both directions of every usable edge
    observations: Observations


def graph_of(views: Sequence[View], edges: Sequence[tuple[int, int]]) -> Graph:
    count = max(1, *(len(view.anchors) for view in views))
    rays = np.zeros((len(views), count, 3))
    rays[..., 2] = 1
    for index, view in enumerate(views):
        rays[index, : len(view.anchors)] = view.anchor_rays
    flows: dict[tuple[int, int], Flow] = {}
    pairs, seen, weights, focals = [], [], [], []
    for a, b in edges:
        forth, back = flow_between(views[a], views[b]), flow_between(views[b], views[a])
        if min(forth.overlap, back.overlap) < MIN_OVERLAP:
            continue
        two = [(a, b, *_observe(views[a], views[b], forth, count)), (b, a, *_observe(views[b], views[a], back, count))]
        if min(np.count_nonzero(weight) for *_, weight in two) < MIN_ANCHORS:
            continue
        flows[a, b], flows[b, a] = forth, back
        for first, second, where, weight in two:
            pairs.append((first, second))
            seen.append(where)
            weights.append(weight)
            focals.append((views[second].camera.fx + views[second].camera.fy) / 2)
    observations = Observations(
        rays,
        np.array(pairs, np.int64).reshape(-1, 2),
        np.array(seen).reshape(-1, count, 2),
        np.array(weights).reshape(-1, count),
        np.array(focals, float),
    )
    return Graph(views, flows, observations)


def _observe(view: View, other: View, flow: Flow, count: int) -> tuple[Floats, Floats]:
    """Where the anchors lie in the other view [count, 2] (normalised) and their weights [count]."""
    rows, columns = view.anchor_index
    error = flow.error[rows, columns].astype(float)
    texture = smaller_eigenvalue(view.tensor[:, rows, columns]).astype(float)
    variance = BASE_SIGMA**2 + TEXTURE_SIGMA**2 / (texture + 0.5) + (0.5 * np.minimum(error, 10)) ** 2
    seen, weight = np.zeros((count, 2)), np.zeros(count)
    seen[: len(rows)] = _normalised(flow, rows, columns, other)
    weight[: len(rows)] = np.where(error < MAX_ERROR, (2 * BASE_SIGMA**2) / variance, 0)
    return seen, weight


def _normalised(flow: Flow, rows: NDArray[np.int64], columns: NDArray[np.int64], other: View) -> Floats:
    camera = other.camera
    x, y = flow.x[rows, columns].astype(float), flow.y[rows, columns].astype(float)
    return np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy], -1)


def components(count: int, flows: dict[tuple[int, int], Flow]) -> NDArray[np.int64]:
    label = np.arange(count)
    for a, b in flows:
        label[label == label[b]] = label[a]
    return np.unique(label, return_inverse=True)[1].astype(np.int64)


def corresponding_rays(view: View, other: View, flow: Flow) -> tuple[Floats, Floats]:
    """Rays [N, 3], z = 1, of about a thousand textured pixels and of where they lie in the other view."""
    rows, columns = _pose_grid(view, flow)
    seen = _normalised(flow, rows, columns, other)
    return view.rays[rows, columns].astype(float), np.concatenate([seen, np.ones((len(seen), 1))], 1)


def _pose_grid(view: View, flow: Flow) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of about a thousand textured pixels with a consistent flow."""
    height, width = view.gray.shape
    step = max(2, round(POSE_GRID * max(height, width) / 320))
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
    textured = smaller_eigenvalue(view.tensor[:, rows, columns]) > POSE_TEXTURE
    kept = textured & (flow.error[rows, columns] < MAX_ERROR)
    return rows[kept], columns[kept]
