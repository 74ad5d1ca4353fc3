"""A camera's pose from known points and where it sees them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.geometry.camera import Camera
from dust3r_ros.geometry.errors import GeometryError
from dust3r_ros.geometry.rotations import inverse_pose, pose_matrix, transform_points

Array = NDArray[np.float64]

MIN_INLIERS = 6  # three more than a pose needs: fewer agree by chance
RANSAC_ROUNDS = 2000  # at most: with three quarters of outliers that is enough for samples of three
GUESS_SHARE = 0.6  # a guess that this share agrees with is taken as it stands; below it RANSAC gets its chance too
REFINEMENTS = ((4.0, 2.0, 1.0), (1.0,))  # thresholds, as multiples of the set one: from a guess, after RANSAC
MAX_ROUNDS = 10  # more at the set threshold, until the same points agree


@dataclass(frozen=True, eq=False)
class PnpResult:
    pose: Array  # [4, 4] camera to world
    inliers: NDArray[np.bool_]  # [N] within the threshold and in front of the camera
    error_px: float  # root mean square reprojection error of the inliers, pixels


def reproject(points: ArrayLike, camera: Camera, pose: ArrayLike) -> Array:
    """[..., 3] world points -> [..., 2] pixels of `camera` at `pose` (camera to world); NaN as in `Camera.project`."""
    return camera.project(transform_points(inverse_pose(pose), points))


def solve_pnp(
    points: ArrayLike, pixels: ArrayLike, camera: Camera, threshold_px: float = 2.0, guess: ArrayLike | None = None
) -> PnpResult | None:
    """Pose of `camera` from world points [N, 3] and their (distorted) pixels [N, 2]; the same input gives the same pose.

    OpenCV's RANSAC, then Levenberg-Marquardt on the inliers (`pnp_refinement`), which are counted anew. A `guess` (camera to world) is
    refined first and RANSAC spared where most points agree with it. Rows that are not finite, and pixels without a ray, are never
    inliers. None if fewer than 6 points agree. GeometryError for shapes that do not match.
    """
    world, seen = np.asarray(points, np.float64), np.asarray(pixels, np.float64)
    if world.ndim != 2 or world.shape[1] != 3 or seen.shape != (len(world), 2):
        raise GeometryError(f"pose from points of shape {world.shape} and pixels of shape {seen.shape}: give (N, 3) and (N, 2)")
    if not threshold_px > 0:
        raise GeometryError(f"pose with a threshold of {threshold_px} pixels: give one above 0")
    rays = camera.unproject(seen)
    usable = np.isfinite(world).all(1) & np.isfinite(rays).all(1)
    if usable.sum() < MIN_INLIERS:
        return None
    centre = world[usable].mean(0)
    extent = float(np.linalg.norm(world[usable] - centre, axis=1).mean())
    if not extent > 0:
        return None
    problem = _Problem((world[usable] - centre) / extent, rays[usable, :2] * (camera.fx, camera.fy), seen[usable], camera, threshold_px)
    best = None if guess is None else problem.refined(_shifted(np.asarray(guess, np.float64), centre, extent), REFINEMENTS[0])
    if best is None or best[1].mean() < GUESS_SHARE:
        start = problem.ransac()
        found = None if start is None else problem.refined(start, REFINEMENTS[1])
        if found is not None and (best is None or found[1].sum() > best[1].sum()):
            best = found
    if best is None:
        return None
    to_camera, agree, error = best
    pose = inverse_pose(to_camera)
    pose[:3, 3] = pose[:3, 3] * extent + centre
    inliers = np.zeros(len(world), bool)
    inliers[usable] = agree
    return PnpResult(pose, inliers, error)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Points of unit size about the origin, undistorted pixels about the principal point, and the pixels as they were seen."""

    points: Array
    pixels: Array
    seen: Array
    camera: Camera
    threshold: float

    @property
    def matrix(self) -> Array:
        return np.diag([self.camera.fx, self.camera.fy, 1.0])

    def ransac(self) -> Array | None:
        """A first world-to-camera pose. OpenCV's generator starts from the same seed at every call."""
        settings = cv2.UsacParams()
        settings.threshold, settings.confidence, settings.maxIterations = self.threshold, 0.9999, RANSAC_ROUNDS
        settings.score, settings.loMethod = cv2.SCORE_METHOD_MSAC, cv2.LOCAL_OPTIM_INNER_LO
        try:
            found, _, turn, move, inliers = cv2.solvePnPRansac(self.points, self.pixels, self.matrix, None, params=settings)
        except cv2.error:  # points from which its solvers make nothing
            return None
        if not found or inliers is None or not (np.isfinite(turn).all() and np.isfinite(move).all()):
            return None
        return pose_matrix(cv2.Rodrigues(turn)[0], move.ravel())

    def refined(self, to_camera: Array, thresholds: tuple[float, ...]) -> tuple[Array, NDArray[np.bool_], float] | None:
        """Count inliers, move to where they agree best, threshold by threshold; None as soon as too few are left."""
        from dust3r_ros.geometry.pnp_refinement import refine

        agree, errors = np.zeros(len(self.points), bool), self.errors(to_camera)
        for at, factor in enumerate((*thresholds, *[1.0] * MAX_ROUNDS)):
            before, agree = agree, errors < factor * self.threshold
            if agree.sum() < MIN_INLIERS:
                return None
            if (agree == before).all():  # it is where they agree best already
                if at >= len(thresholds):
                    break
                continue
            to_camera = refine(self.points[agree], self.pixels[agree], self.camera.fx, self.camera.fy, to_camera)
            if not np.isfinite(to_camera).all():
                return None
            errors = self.errors(to_camera)
        agree = errors < self.threshold
        if agree.sum() < MIN_INLIERS:
            return None
        return to_camera, agree, float(np.sqrt(np.mean(errors[agree] ** 2)))

    def errors(self, to_camera: Array) -> Array:
        """[N] pixels of the camera's own picture; infinite where it cannot see the point."""
        errors = np.linalg.norm(self.camera.project(transform_points(to_camera, self.points)) - self.seen, axis=1)
        return np.where(np.isfinite(errors), errors, np.inf)


def _shifted(guess: Array, centre: Array, extent: float) -> Array:
    """A camera-to-world guess as world-to-camera of the centred, unit-sized points."""
    moved = guess.copy()
    moved[:3, 3] = (guess[:3, 3] - centre) / extent
    return inverse_pose(moved)
