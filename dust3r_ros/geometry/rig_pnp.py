"""The pose of several cameras that are fixed to one another, from what all of them see: a generalised camera.

Kneip, Furgale, Siegwart, Using multi-camera systems in robotics: efficient solutions to the NPnP problem, ICRA 2013. Here each camera's
own PnP proposes where the rig is, all cameras' points vote, and one pose is refined over the points of all that agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry.camera import Camera
from dust3r_ros.geometry.errors import GeometryError
from dust3r_ros.geometry.pnp import GUESS_SHARE, MIN_INLIERS, solve_pnp
from dust3r_ros.geometry.rotations import inverse_pose, transform_points

Array = NDArray[np.float64]

FROM_GUESS, FROM_RANSAC = (16.0, 6.0, 2.0, 1.0, 1.0), (2.0, 1.0, 1.0)  # thresholds, as multiples of each camera's own
STEPS = 3  # of Gauss-Newton at each threshold
SMALL = 1e-10  # squared step, rad and share of the depth, at which it stands


@dataclass(frozen=True, eq=False)
class Sight:
    """What one camera of the rig sees."""

    points: Array  # [N, 3] world
    pixels: Array  # [N, 2] as they are seen, distorted
    camera: Camera
    mount: Array  # [4, 4] camera to rig, in the units of the points
    threshold_px: float


@dataclass(frozen=True, eq=False)
class RigPose:
    """Where the rig is."""

    pose: Array  # [4, 4] rig to world
    inliers: tuple[NDArray[np.bool_], ...]  # of each sight: within its threshold and in front of its camera
    errors_px: tuple[float, ...]  # root mean square reprojection error of each sight's inliers; 0 without any

    @property
    def share(self) -> float:
        """Of all points, those that agree."""
        return float(np.concatenate(self.inliers).mean())


def solve_rig_pnp(sights: Sequence[Sight], guess: ArrayLike | None = None) -> RigPose | None:
    """One pose of the rig from the points of all its cameras; the same input gives the same pose.

    A `guess` (rig to world) is refined first; where it does not explain most points, each camera's own RANSAC proposes another. Rows that
    are not finite are never inliers. None if fewer than 6 points agree. GeometryError for shapes that do not match.
    """
    for sight in sights:
        if sight.points.ndim != 2 or sight.points.shape[1] != 3 or sight.pixels.shape != (len(sight.points), 2):
            raise GeometryError(f"pose from points of shape {sight.points.shape} and pixels {sight.pixels.shape}: give (N, 3) and (N, 2)")
    eyes = [_Eye(sight) for sight in sights]
    best = None if guess is None else _refined(eyes, np.asarray(guess, np.float64), FROM_GUESS)
    if best is None or best.share < GUESS_SHARE:
        for sight in sights:
            alone = solve_pnp(sight.points, sight.pixels, sight.camera, sight.threshold_px)
            found = None if alone is None else _refined(eyes, alone.pose @ inverse_pose(sight.mount), FROM_RANSAC)
            if found is not None and (best is None or found.share > best.share):
                best = found
    return best


class _Eye:
    """A sight with its pixels undistorted, for Gauss-Newton."""

    def __init__(self, sight: Sight) -> None:
        self.sight, self.camera = sight, sight.camera
        self.to_camera = inverse_pose(sight.mount)
        rays = sight.camera.unproject(sight.pixels)
        self.usable: NDArray[np.bool_] = np.asarray(np.isfinite(rays).all(1) & np.isfinite(sight.points).all(1))
        self.points = np.where(self.usable[:, None], sight.points, 0.0)
        self.seen = np.where(self.usable[:, None], rays, 0.0)[:, :2] * (sight.camera.fx, sight.camera.fy)

    def errors(self, world_to_rig: Array) -> Array:
        """[N] pixels of the camera's own picture; infinite where it cannot see the point."""
        pixels = self.camera.project(transform_points(self.to_camera @ world_to_rig, self.points))
        errors = np.linalg.norm(pixels - self.sight.pixels, axis=1)
        return np.where(np.isfinite(errors) & self.usable, errors, np.inf)

    def normal_equations(self, world_to_rig: Array, agree: NDArray[np.bool_]) -> tuple[Array, Array]:
        """H [6, 6] and gradient [6] of an increment on the left of `world_to_rig`: rotation, translation. In thresholds."""
        rig = transform_points(world_to_rig, self.points[agree])
        x, y, z = transform_points(self.to_camera, rig).T
        fx, fy, zero = self.camera.fx, self.camera.fy, np.zeros_like(z)
        pixel = np.stack([np.stack([fx / z, zero, -fx * x / z**2], -1), np.stack([zero, fy / z, -fy * y / z**2], -1)], 1)
        moved = np.zeros((len(z), 3, 6))
        moved[:, 0, 1], moved[:, 0, 2] = rig[:, 2], -rig[:, 1]
        moved[:, 1, 0], moved[:, 1, 2] = -rig[:, 2], rig[:, 0]
        moved[:, 2, 0], moved[:, 2, 1] = rig[:, 1], -rig[:, 0]
        moved[:, :, 3:] = np.eye(3)
        jacobian = (pixel @ (self.to_camera[:3, :3] @ moved) / self.sight.threshold_px).reshape(-1, 6)
        residual = (np.stack([fx * x / z, fy * y / z], -1) - self.seen[agree]).ravel() / self.sight.threshold_px
        return jacobian.T @ jacobian, jacobian.T @ residual


def _refined(eyes: Sequence[_Eye], pose: Array, thresholds: Sequence[float]) -> RigPose | None:
    """Count those that agree, move to where they agree best, threshold by threshold; None as soon as too few are left."""
    world_to_rig = inverse_pose(pose)
    for factor in thresholds:
        agree = [eye.errors(world_to_rig) < factor * eye.sight.threshold_px for eye in eyes]
        if sum(int(one.sum()) for one in agree) < MIN_INLIERS:
            return None
        for _ in range(STEPS):
            parts = [eye.normal_equations(world_to_rig, one) for eye, one in zip(eyes, agree, strict=True) if one.any()]
            hessian, gradient = np.sum([h for h, _ in parts], axis=0), np.sum([g for _, g in parts], axis=0)
            try:
                step = -np.linalg.solve(hessian + 1e-12 * np.trace(hessian) * np.eye(6), gradient)
            except np.linalg.LinAlgError:
                return None
            if not np.isfinite(step).all():
                return None
            change = np.eye(4)
            change[:3, :3], change[:3, 3] = Rotation.from_rotvec(step[:3]).as_matrix(), step[3:]
            world_to_rig = change @ world_to_rig
            if float(step @ step) < SMALL:
                break
    errors = [eye.errors(world_to_rig) for eye in eyes]
    inliers = tuple(error < eye.sight.threshold_px for eye, error in zip(eyes, errors, strict=True))
    if sum(int(one.sum()) for one in inliers) < MIN_INLIERS:
        return None
    left = tuple(float(np.sqrt((error[one] ** 2).mean())) if one.any() else 0.0 for error, one in zip(errors, inliers, strict=True))
    return RigPose(inverse_pose(world_to_rig), inliers, left)
