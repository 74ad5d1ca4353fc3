"""Relative pose of two views from the flow at some of their pixels: the rotation that explains most, then rotation and direction.

Conventions: a point `p` in the first camera is `rotation @ p + translation` in the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_POINTS = 24
ROTATION_ONLY = 0.5  # pixels of median parallax under which no direction is given
CAUCHY_SCALES = (3.0, 1.0, 0.7, 0.4)  # pixels, from coarse to fine
ITERATIONS = (4, 4, 4, 6)
COARSE_POINTS = 250  # points for the search over all starts; the best ones are refined on all points
REFINED_STARTS = 4
ESSENTIAL_THRESHOLD = 1.0  # pixels
DIRECTIONS = 16


@dataclass(frozen=True, eq=False)
class PairPose:
    """Second camera from first. `translation` has length one, or zero where the views differ by a rotation only."""

    rotation: Floats  # [3, 3]
    translation: Floats  # [3]
    parallax: float  # pixels: median of what the best pure rotation leaves
    cost: float  # mean robust Sampson cost, in units of the finest scale squared


def pair_pose(rays_1: Floats, rays_2: Floats, focal: float) -> PairPose | None:
    """From corresponding rays [N, 3] with z = 1 (`focal` turns them to pixels); None with too few points."""
    if len(rays_1) < MIN_POINTS:
        return None
    rotation, parallax = fit_rotation(rays_1, rays_2, focal)
    if parallax < ROTATION_ONLY:
        return PairPose(rotation, np.zeros(3), parallax, 0.0)
    rotations, directions = _starts(rays_1, rays_2, rotation, focal)
    some = slice(None, None, max(1, len(rays_1) // COARSE_POINTS))
    for scale, count in zip(CAUCHY_SCALES[:2], ITERATIONS[:2], strict=True):
        rotations, directions = _refine(rays_1[some], rays_2[some], rotations, directions, focal, scale, count)
    cost = _cost(rays_1[some], rays_2[some], rotations, directions, focal, CAUCHY_SCALES[1])
    best = np.argsort(cost, kind="stable")[:REFINED_STARTS]
    rotations, directions = rotations[best], directions[best]
    for scale, count in zip(CAUCHY_SCALES[2:], ITERATIONS[2:], strict=True):
        rotations, directions = _refine(rays_1, rays_2, rotations, directions, focal, scale, count)
    cost = _cost(rays_1, rays_2, rotations, directions, focal, CAUCHY_SCALES[-1])
    chosen = int(np.argmin(cost))
    rotation, direction = rotations[chosen], directions[chosen]
    return PairPose(rotation, direction * _sign(rays_1, rays_2, rotation, direction), parallax, float(cost[chosen]))


def fit_rotation(rays_1: Floats, rays_2: Floats, focal: float) -> tuple[Floats, float]:
    """The pure rotation that brings the first rays closest to the second in the image, and the median residual in pixels."""
    bearings_1 = rays_1 / np.linalg.norm(rays_1, axis=1, keepdims=True)
    bearings_2 = rays_2 / np.linalg.norm(rays_2, axis=1, keepdims=True)
    u, _, vt = np.linalg.svd(bearings_2.T @ bearings_1)
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    for scale in (8.0, 4.0, 2.0, 1.0, 1.0, 1.0):
        turned = rays_1 @ rotation.T
        z = np.maximum(turned[:, 2], 1e-3)
        residual = focal * (turned[:, :2] / z[:, None] - rays_2[:, :2])  # [N, 2]
        median = float(np.median(np.linalg.norm(residual, axis=1)))
        weight = 1 / (1 + np.sum(residual**2, axis=1) / (scale * max(1.0, median)) ** 2)
        jacobian = projection_jacobian(turned, focal) @ -cross_matrices(turned)  # [N, 2, 3]
        normal = np.einsum("nki,n,nkj->ij", jacobian, weight, jacobian)
        rotation = (
            rotation_matrix(np.linalg.solve(normal + 1e-9 * np.eye(3), -np.einsum("nki,n,nk->i", jacobian, weight, residual))) @ rotation
        )
    turned = rays_1 @ rotation.T
    residual = focal * (turned[:, :2] / np.maximum(turned[:, 2:], 1e-3) - rays_2[:, :2])
    return rotation, float(np.median(np.linalg.norm(residual, axis=1)))


def epipolar_distance(rays_1: Floats, rays_2: Floats, rotation: Floats, translation: Floats, focal: float) -> Floats:
    """[N] Sampson distances in pixels (Hartley and Zisserman, 11.4.3)."""
    return np.abs(_sampson(rays_1, rays_2, rotation[None], translation[None], focal)[0][0])


def rotation_matrix(vector: Floats) -> Floats:
    """Rodrigues: rotation vectors [..., 3] to matrices [..., 3, 3]."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    k = cross_matrices(vector)
    small = angle < 1e-8
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 1.0, np.sin(safe) / safe)
    second = np.where(small, 0.5, (1 - np.cos(safe)) / safe**2)
    return np.eye(3) + first * k + second * (k @ k)


def cross_matrices(vectors: Floats) -> Floats:
    """[..., 3] to [..., 3, 3] with `cross_matrices(a) @ b == a x b`."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    o = np.zeros_like(x)
    return np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], -2)


def projection_jacobian(points: Floats, focal: float) -> Floats:
    """[..., 2, 3]: change of the projection in pixels with the point [..., 3]."""
    x, y, z = np.moveaxis(points, -1, 0)
    z = np.maximum(z, 1e-3)
    o = np.zeros_like(z)
    return focal * np.stack([np.stack([1 / z, o, -x / z**2], -1), np.stack([o, 1 / z, -y / z**2], -1)], -2)


def _starts(rays_1: Floats, rays_2: Floats, rotation: Floats, focal: float) -> tuple[Floats, Floats]:
    """Rotations [S, 3, 3] and unit directions [S, 3] to start from: a half sphere of directions, and an essential matrix."""
    n = np.arange(DIRECTIONS)
    z = (n + 0.5) / DIRECTIONS  # Fibonacci half sphere: a direction and its opposite have one epipolar geometry
    angle = n * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z * z)
    directions = [np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)]
    rotations = [np.repeat(rotation[None], DIRECTIONS, 0)]
    essential, _ = cv2.findEssentialMat(
        rays_1[:, :2].copy(),
        rays_2[:, :2].copy(),
        np.eye(3),
        method=cv2.USAC_MAGSAC,
        prob=0.999,
        threshold=ESSENTIAL_THRESHOLD / focal,
        maxIters=300,
    )
    if essential is not None and essential.shape == (3, 3) and np.isfinite(essential).all():
        first, second, direction = cv2.decomposeEssentialMat(essential)
        closest = max((first, second), key=lambda candidate: float(np.trace(candidate @ rotation.T)))
        rotations.append(closest[None])
        directions.append(direction.reshape(1, 3))
    return np.concatenate(rotations), np.concatenate(directions)


def _sampson(rays_1: Floats, rays_2: Floats, rotations: Floats, directions: Floats, focal: float) -> tuple[Floats, Floats, Floats]:
    """Sampson distances in pixels [S, N] and their derivatives by a left rotation [S, N, 3] and by the direction [S, N, 3]."""
    turned = rays_1 @ rotations.transpose(0, 2, 1)  # [S, N, 3]
    normal = _cross(turned, rays_2[None])  # derivative of the epipolar product by the direction
    product = np.einsum("snk,sk->sn", normal, directions)
    line_2 = _cross(directions[:, None], turned)  # E x1
    reverse = _cross(rays_2[None], directions[:, None])  # [t]x^T x2
    line_1 = reverse @ rotations  # E^T x2
    size = np.sqrt(line_1[..., 0] ** 2 + line_1[..., 1] ** 2 + line_2[..., 0] ** 2 + line_2[..., 1] ** 2) + 1e-12
    factor = focal / size
    by_rotation = _cross(turned, reverse)
    return product * factor, by_rotation * factor[..., None], normal * factor[..., None]


def _cross(a: Floats, b: Floats) -> Floats:
    """Cross product over the last axis, broadcast; numpy's own is slow on many small vectors."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def _refine(
    rays_1: Floats, rays_2: Floats, rotations: Floats, directions: Floats, focal: float, scale: float, iterations: int
) -> tuple[Floats, Floats]:
    """Gauss-Newton on the Sampson distance with Cauchy weights, from every start at once."""
    for _ in range(iterations):
        residual, by_rotation, by_direction = _sampson(rays_1, rays_2, rotations, directions, focal)
        weight = 1 / (1 + (residual / scale) ** 2)
        plane = _tangent(directions)  # [S, 3, 2]
        jacobian = np.concatenate([by_rotation, by_direction @ plane], -1)  # [S, N, 5]
        weighted = (jacobian * weight[..., None]).transpose(0, 2, 1)
        normal = weighted @ jacobian
        normal += 1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(5) + 1e-12 * np.eye(5)
        step = np.linalg.solve(normal, -(weighted @ residual[..., None]))[..., 0]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1, 0.5 / np.maximum(length, 1e-12))
        rotations = rotation_matrix(step[:, :3]) @ rotations
        directions = directions + np.einsum("sij,sj->si", plane, step[:, 3:])
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return rotations, directions


def _cost(rays_1: Floats, rays_2: Floats, rotations: Floats, directions: Floats, focal: float, scale: float) -> Floats:
    """Mean Cauchy cost of each candidate [S]."""
    residual, _, _ = _sampson(rays_1, rays_2, rotations, directions, focal)
    return np.log1p((residual / scale) ** 2).mean(axis=1)


def _tangent(directions: Floats) -> Floats:
    """Two unit vectors across each direction, [S, 3, 2]."""
    smallest = np.eye(3)[np.argmin(np.abs(directions), axis=1)]
    first = _cross(directions, smallest)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, _cross(directions, first)], -1)


def _sign(rays_1: Floats, rays_2: Floats, rotation: Floats, direction: Floats) -> float:
    """+1 or -1: the direction that puts more (surely seen) points in front of the cameras."""
    turned = rays_1 @ rotation.T
    a = direction[:2] - rays_2[:, :2] * direction[2]
    b = rays_2[:, :2] * turned[:, 2:] - turned[:, :2]
    return 1.0 if float(np.sum(np.tanh(np.sum(a * b, axis=1) / (np.mean(np.abs(np.sum(a * b, axis=1))) + 1e-12)))) >= 0 else -1.0
