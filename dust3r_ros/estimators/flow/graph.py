"""Which views see each other, and what the flows between them say about points of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.bundle_equations import Observations
from dust3r_ros.estimators.flow.correspondence import MAX_ERROR, MIN_OVERLAP, flow_between, normalised
from dust3r_ros.estimators.flow.dense import Flow
from dust3r_ros.estimators.flow.triangulation import BASE_SIGMA, TEXTURE_SIGMA
from dust3r_ros.estimators.flow.view import View, smaller_eigenvalue

Floats = NDArray[np.float64]

MIN_ANCHORS = 12  # seen both ways, for two views to see each other


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
            focals.append(views[second].focal)
    observations = Observations(
        rays,
        np.array(pairs, np.int64).reshape(-1, 2),
        np.array(seen).reshape(-1, count, 2),
        np.array(weights).reshape(-1, count),
        np.array(focals, float),
        np.zeros((len(views), count)),
    )
    return Graph(views, flows, observations)


def _observe(view: View, other: View, flow: Flow, count: int) -> tuple[Floats, Floats]:
    """Where the anchors lie in the other view [count, 2] (normalised) and their weights [count]."""
    rows, columns = view.anchor_index
    error = flow.error[rows, columns].astype(float)
    texture = smaller_eigenvalue(view.tensor[:, rows, columns]).astype(float)
    variance = BASE_SIGMA**2 + TEXTURE_SIGMA**2 / (texture + 0.5) + (0.5 * np.minimum(error, 10)) ** 2
    seen, weight = np.zeros((count, 2)), np.zeros(count)
    seen[: len(rows)] = normalised(flow, rows, columns, other)
    weight[: len(rows)] = np.where(error < MAX_ERROR, (2 * BASE_SIGMA**2) / variance, 0)
    return seen, weight


def components(count: int, flows: dict[tuple[int, int], Flow]) -> NDArray[np.int64]:
    label = np.arange(count)
    for a, b in flows:
        label[label == label[b]] = label[a]
    return np.unique(label, return_inverse=True)[1].astype(np.int64)
