"""The equations of a bundle adjustment over direct flows: residuals, their slopes, and the solution with the points eliminated.

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


@dataclass(frozen=True, eq=False)
class Linearisation:
    """Residuals and their slopes at one state."""

    cost: float
    residual: Floats  # [P, N, 2] pixels
    weight: Floats  # [P, N] after the robust loss
    by_anchor: Floats  # [P, N, 2, 6] turn and shift of the anchor's view
    by_viewer: Floats  # [P, N, 2, 6]
    by_depth: Floats  # [P, N, 2]
    by_shared: Floats  # [P, N, 2, T] what all views have in common; T may be 0


def linearise(observations: Observations, poses: Floats, inverse_depth: Floats) -> Linearisation:
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
    by_depth = np.einsum("pnij,pj->pni", slope, shift)
    return Linearisation(cost, residual, weight, by_anchor, by_viewer, by_depth, np.zeros((*residual.shape, 0)))


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """Of the views' six each, the T shared unknowns and the points' inverse depths, which meet each other nowhere."""

    hessian: Floats  # [6 V + T, 6 V + T]
    gradient: Floats  # [6 V + T]
    coupling: Floats  # [6 V + T, V * N]
    depth_hessian: Floats  # [V * N] its diagonal, which is all of it
    depth_gradient: Floats  # [V * N]


def normal_equations(observations: Observations, inverse_depth: Floats, state: Linearisation) -> NormalEquations:
    views, points = inverse_depth.shape
    shared = state.by_shared.shape[-1]
    size, anchor = 6 * views + shared, observations.pairs[:, 0]
    slopes = np.concatenate([state.by_anchor, state.by_viewer, state.by_shared], -1)  # [P, N, 2, D]
    weighted = slopes * state.weight[..., None, None]
    flat = slopes.reshape(len(slopes), -1, 12 + shared)
    flat_weighted = weighted.reshape(flat.shape).transpose(0, 2, 1)
    normal = flat_weighted @ flat  # [P, D, D]
    gradient = (flat_weighted @ state.residual.reshape(len(slopes), -1, 1))[..., 0]  # [P, D]
    cross = np.einsum("pnij,pni->pjn", weighted, state.by_depth)  # [P, D, N]
    slope = np.where(observations.known > 0, PRIOR / np.maximum(observations.known, 1e-12), 0.0)
    depth_hessian = slope**2
    depth_gradient = slope * _departure(observations, inverse_depth)
    np.add.at(depth_hessian, anchor, state.weight * np.sum(state.by_depth**2, axis=-1))
    np.add.at(depth_gradient, anchor, state.weight * np.sum(state.by_depth * state.residual, axis=-1))

    h, g, w = np.zeros((size, size)), np.zeros(size), np.zeros((size, views * points))
    for index, (a, b) in enumerate(observations.pairs):
        theirs = [slice(6 * a, 6 * a + 6), slice(6 * b, 6 * b + 6), slice(6 * views, size)]
        local = [slice(0, 6), slice(6, 12), slice(12, 12 + shared)]
        for row, here in zip(theirs, local, strict=True):
            g[row] += gradient[index, here]
            w[row, a * points : (a + 1) * points] += cross[index, here]
            for column, there in zip(theirs, local, strict=True):
                h[row, column] += normal[index, here, there]
    return NormalEquations(h, g, w, depth_hessian.ravel(), depth_gradient.ravel())


def solve(normal: NormalEquations, damping: float) -> tuple[Floats, Floats]:
    """A Levenberg-Marquardt step of views and shared unknowns [6 V + T] (the first view holds the world) and of the points [V * N]."""
    hessian, coupling = normal.hessian[6:, 6:].copy(), normal.coupling[6:]
    diagonal = np.diag_indices(len(hessian))
    hessian[diagonal] += damping * hessian[diagonal] + 1e-9
    inverse = _inverse(normal.depth_hessian * (1 + damping))
    reduced = hessian - _gram(coupling, inverse)
    right = -normal.gradient[6:] + coupling @ (inverse * normal.depth_gradient)
    try:
        move = np.linalg.solve(reduced, right)
    except np.linalg.LinAlgError:
        move = np.linalg.lstsq(reduced, right, rcond=None)[0]
    deeper = -inverse * (normal.depth_gradient + coupling.T @ move)
    return np.concatenate([np.zeros(6), move]), deeper


def shared_information(normal: NormalEquations, shared: int) -> Floats:
    """[T, T] what is known of the shared unknowns with everything else free: the inverse of their covariance, times the noise squared."""
    coupling = normal.coupling[6:]
    reduced = normal.hessian[6:, 6:] - _gram(coupling, _inverse(normal.depth_hessian))
    poses, cross = reduced[:-shared, :-shared], reduced[:-shared, -shared:]
    return np.asarray(reduced[-shared:, -shared:] - cross.T @ np.linalg.pinv(poses) @ cross)


def moved(poses: Floats, move: Floats) -> Floats:
    """Poses [V, 4, 4] turned and shifted on their left by [6 V]."""
    each = move.reshape(len(poses), 6)
    update = np.zeros_like(poses)
    update[:, :3, :3] = rotation_matrix(np.asarray(each[:, :3], np.float64))
    update[:, :3, 3] = each[:, 3:]
    update[:, 3, 3] = 1
    return np.asarray(update @ poses)


def _inverse(diagonal: Floats) -> Floats:
    return np.where(diagonal > 1e-12, 1 / np.maximum(diagonal, 1e-12), 0.0)


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
