"""Joint bundle adjustment over a window: poses and inverse depths from direct flows (Schur complement, Levenberg-Marquardt).

A point is anchored in one view (its pixel there is exact) and has one unknown, its inverse depth along z; each flow into another
view observes it. Inverse depth: Civera et al., T-RO 2008; the elimination of the points: Triggs et al., 2000, section 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.pair_pose import cross_matrices, projection_jacobian, rotation_matrix

Floats = NDArray[np.float64]

CAUCHY_SCALE = 0.5  # pixels
MIN_DEPTH = 0.05  # of a point scaled by its inverse depth: nearer to the camera plane it counts as behind it
FIRST_DAMPING = 1e-3
PRIOR_SIGMA = 0.1  # relative, of an inverse depth that an earlier solution gave
POINT_SIGMA = 0.14  # pixels, of an observation of weight 1
PRIOR = POINT_SIGMA / PRIOR_SIGMA  # pixels of residual per relative change
PIECE = 96  # columns of the point coupling multiplied at a time


@dataclass(frozen=True, eq=False)
class Observations:
    """Flows of V views' anchors (N of them, padded) along P directed pairs."""

    rays: Floats  # [V, N, 3], z = 1, in the anchor's own view
    pairs: NDArray[np.int64]  # [P, 2] view of the anchors, view that sees them
    seen: Floats  # [P, N, 2] where: x / z and y / z in the second view
    weight: Floats  # [P, N] >= 0, inverse variance relative to a good point's; 0 where not seen
    focal: Floats  # [P] pixels, of the second view
    known: Floats  # [V, N] inverse depths of an earlier solution, 0 where there is none: a weak prior


def adjust(observations: Observations, poses: Floats, inverse_depth: Floats, iterations: int) -> tuple[Floats, Floats, float]:
    """Refined poses [V, 4, 4] (world to camera; the first is held), inverse depths [V, N] and the mean robust cost (pixels squared).

    The scale of the whole is free; damping keeps it near where it was.
    """
    damping = FIRST_DAMPING
    total = max(float(observations.weight.sum()), 1e-9)
    state = _linearise(observations, poses, inverse_depth)
    for _ in range(iterations):
        new_poses, new_inverse_depth = _step(observations, poses, inverse_depth, state, damping)
        candidate = _linearise(observations, new_poses, new_inverse_depth)
        if candidate.cost < state.cost:
            finished = state.cost - candidate.cost < 1e-5 * state.cost
            poses, inverse_depth, state = new_poses, new_inverse_depth, candidate
            damping = max(damping / 5, 1e-7)
            if finished:
                break
        else:
            damping *= 10
            if damping > 1e6:
                break
    return poses, inverse_depth, state.cost / total


@dataclass(frozen=True, eq=False)
class _Linear:
    cost: float
    residual: Floats  # [P, N, 2] pixels
    weight: Floats  # [P, N] after the robust loss
    by_anchor: Floats  # [P, N, 2, 6] turn and shift of the anchor's view
    by_viewer: Floats  # [P, N, 2, 6]
    by_depth: Floats  # [P, N, 2]


def _linearise(observations: Observations, poses: Floats, inverse_depth: Floats) -> _Linear:
    anchor, viewer = observations.pairs.T
    turn = poses[viewer, :3, :3] @ poses[anchor, :3, :3].transpose(0, 2, 1)  # [P, 3, 3]
    shift = poses[viewer, :3, 3] - np.einsum("pij,pj->pi", turn, poses[anchor, :3, 3])  # [P, 3]
    rays = observations.rays[anchor]
    rho = inverse_depth[anchor][..., None]  # [P, N, 1]
    point = rays @ turn.transpose(0, 2, 1) + rho * shift[:, None]  # [P, N, 3], scaled by the inverse depth
    front = point[..., 2] > MIN_DEPTH
    z = np.where(front, point[..., 2], 1.0)
    focal = observations.focal[:, None]
    residual = focal[..., None] * (point[..., :2] / z[..., None] - observations.seen)
    squared = np.sum(residual**2, axis=-1)
    base = np.where(front, observations.weight, 0.0)
    behind = observations.weight.sum() - base.sum()
    departure = _departure(observations, inverse_depth)
    prior = float(np.sum(departure**2))
    cost = prior + float(np.sum(base * CAUCHY_SCALE**2 * np.log1p(squared / CAUCHY_SCALE**2)) + behind * CAUCHY_SCALE**2 * np.log1p(1e4))
    weight = base / (1 + squared / CAUCHY_SCALE**2)
    slope = projection_jacobian(point, 1.0) * focal[..., None, None]  # [P, N, 2, 3]
    by_viewer = np.concatenate([slope @ -cross_matrices(point), slope * rho[..., None]], -1)
    turned = slope @ turn[:, None]
    by_anchor = np.concatenate([turned @ cross_matrices(rays), -turned * rho[..., None]], -1)
    return _Linear(cost, residual, weight, by_anchor, by_viewer, np.einsum("pnij,pj->pni", slope, shift))


def _step(observations: Observations, poses: Floats, inverse_depth: Floats, state: _Linear, damping: float) -> tuple[Floats, Floats]:
    views, points = inverse_depth.shape
    anchor = observations.pairs[:, 0]
    both = np.concatenate([state.by_anchor, state.by_viewer], -1)  # [P, N, 2, 12]
    weighted = both * state.weight[..., None, None]
    flat = both.reshape(len(both), -1, 12)
    flat_weighted = weighted.reshape(len(both), -1, 12).transpose(0, 2, 1)
    normal = flat_weighted @ flat  # [P, 12, 12]
    gradient = (flat_weighted @ state.residual.reshape(len(both), -1, 1))[..., 0]  # [P, 12]
    cross = np.einsum("pnij,pni->pjn", weighted, state.by_depth)  # [P, 12, N]
    depth_normal = np.zeros((views, points))
    depth_gradient = np.zeros((views, points))
    slope = np.where(observations.known > 0, PRIOR / np.maximum(observations.known, 1e-12), 0.0)
    depth_normal += slope**2
    depth_gradient += slope * _departure(observations, inverse_depth)
    np.add.at(depth_normal, anchor, state.weight * np.sum(state.by_depth**2, axis=-1))
    np.add.at(depth_gradient, anchor, state.weight * np.sum(state.by_depth * state.residual, axis=-1))

    h = np.zeros((views, 6, views, 6))
    g = np.zeros((views, 6))
    w = np.zeros((views, 6, views, points))
    for index, (a, b) in enumerate(observations.pairs):
        h[a, :, a] += normal[index, :6, :6]
        h[a, :, b] += normal[index, :6, 6:]
        h[b, :, a] += normal[index, 6:, :6]
        h[b, :, b] += normal[index, 6:, 6:]
        g[a] += gradient[index, :6]
        g[b] += gradient[index, 6:]
        w[a, :, a] += cross[index, :6]
        w[b, :, a] += cross[index, 6:]

    free = slice(6, None)  # the first view holds the world
    hessian = h.reshape(6 * views, 6 * views)[free, free].copy()
    coupling = w.reshape(6 * views, views * points)[free]
    diagonal = np.diag_indices(len(hessian))
    hessian[diagonal] += damping * hessian[diagonal] + 1e-9
    d = depth_normal.ravel() * (1 + damping)
    inverse = np.where(d > 1e-12, 1 / np.maximum(d, 1e-12), 0.0)
    reduced = hessian - _gram(coupling, inverse)
    right = -g.ravel()[free] + coupling @ (inverse * depth_gradient.ravel())
    try:
        move = np.linalg.solve(reduced, right)
    except np.linalg.LinAlgError:
        move = np.linalg.lstsq(reduced, right, rcond=None)[0]
    deeper = -inverse * (depth_gradient.ravel() + coupling.T @ move)

    move = np.concatenate([np.zeros(6), move]).reshape(views, 6)
    update = np.zeros_like(poses)
    update[:, :3, :3] = rotation_matrix(np.asarray(move[:, :3], np.float64))
    update[:, :3, 3] = move[:, 3:]
    update[:, 3, 3] = 1
    return update @ poses, inverse_depth + deeper.reshape(views, points)


def _departure(observations: Observations, inverse_depth: Floats) -> Floats:
    """[V, N] residuals of the prior in pixels.

    It holds what the flows leave open: the depths, and with them the scale, of a window in which the camera only turned.
    """
    known = observations.known
    return np.where(known > 0, PRIOR * (inverse_depth / np.maximum(known, 1e-12) - 1), 0.0)


def _gram(rows: Floats, weight: Floats) -> Floats:
    """`rows @ diag(weight) @ rows.T` in small pieces.

    One large product would wake every BLAS thread for a millisecond of work; on a busy machine waiting for them takes ten times that.
    """
    count, length = rows.shape
    padded = -(-length // PIECE) * PIECE
    pieces = np.zeros((count, padded))
    pieces[:, :length] = rows
    scaled = np.zeros((count, padded))
    scaled[:, :length] = rows * weight
    a = scaled.reshape(count, -1, PIECE).transpose(1, 0, 2)
    b = pieces.reshape(count, -1, PIECE).transpose(1, 2, 0)
    return np.asarray((a @ b).sum(axis=0))
