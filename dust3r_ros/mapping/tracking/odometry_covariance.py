"""How far the odometry can be believed: each frame's pose by the Hessian of its PnP, keyframe upon keyframe.

Frames are measured against a keyframe, so within one their errors do not add up; from keyframe to keyframe they do. An error of angle then
turns all the way that follows: e(now) = e(then) + w(then) x (now - then).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Camera, inverse_pose, transform_points

Array = NDArray[np.float64]

# Calibrated on simulated walks (bench/odometry_covariance.py).
INDEPENDENT = 30.0  # points that agree: this many err each on its own; of more the closer neighbours err together
BIAS = 5  # power of the share that agrees: where many do not, those that do are less right than they look
KEYFRAME_SCALE = 0.01  # share of the way: a keyframe's depths are wrong by this as a whole, as its links are
LEAST_ERROR = 0.05  # pixels: points are not followed better


def pnp_covariance(points: Array, camera: Camera, pose: Array, error_px: float, share: float = 1.0) -> Array:
    """[6, 6] of a pose (camera to world, 4x4) found by PnP: an increment on its right, rotation then translation.

    points: [N, 3] world, those that agree; `share` of all did, with a root mean square error of `error_px`. Gauss-Newton's Hessian of
    the reprojection errors, taken as alike; lenses as pinholes. What the points leave open gets a large variance, not an infinite one.
    """
    x, y, z = transform_points(inverse_pose(pose), points).T
    u, v = x / z, y / z
    jacobian = np.zeros((2, 6, len(z)))
    jacobian[0, :3] = camera.fx * np.stack([u * v, -1.0 - u * u, v])
    jacobian[1, :3] = camera.fy * np.stack([1.0 + v * v, -u * v, -u])
    jacobian[0, 3], jacobian[0, 5] = -camera.fx / z, camera.fx * u / z
    jacobian[1, 4], jacobian[1, 5] = -camera.fy / z, camera.fy * v / z
    hessian = jacobian[0] @ jacobian[0].T + jacobian[1] @ jacobian[1].T
    # An error is that of a point: both its pixels' coordinates.
    alike = max(1.0, float(np.sqrt(len(z) / INDEPENDENT)))  # N points say as much as sqrt(30 N): the more there are, the closer they stand
    variance = 0.5 * max(error_px, LEAST_ERROR) ** 2 * alike / share**BIAS
    size = np.array([1.0] * 3 + [1.0 / float(np.median(z))] * 3)  # angles and shares of the depth: alike
    values, vectors = np.linalg.eigh(hessian / np.outer(size, size))
    scaled = (vectors / np.maximum(values, 1e-9 * values.max())) @ vectors.T
    return np.asarray(variance * scaled / np.outer(size, size))


class OdometryCovariance:
    """Of the odometry's pose: position and rotation vector (radians) along the axes of its frame, from where it began."""

    def __init__(self) -> None:
        self.covariance: Array = np.zeros((6, 6))
        self._then: Array = self.covariance  # when the keyframe that frames are measured against became it
        self._at: Array | None = None  # [3] the odometry then
        self._now: Array | None = None
        self._keyframe: int | None = None

    def advance(self, keyframe: int, measured: Array, odometry: Array) -> Array:
        """A frame was measured against `keyframe`: its covariance [6, 6] as `pnp_covariance` gives it, and the odometry (4x4) it led to.

        Returns the odometry's [6, 6].
        """
        position = odometry[:3, 3]
        if keyframe != self._keyframe or self._at is None:
            self._then, self._keyframe = self.covariance, keyframe
            self._at = position if self._now is None else self._now
        way = position - self._at
        turned = np.eye(6)
        turned[:3, 3:] = -_cross(way)
        into = np.zeros((6, 6))  # from (rotation, translation) of the camera to (position, rotation) of the odometry
        into[:3, 3:] = into[3:, :3] = odometry[:3, :3]
        self.covariance = turned @ self._then @ turned.T + into @ measured @ into.T
        self.covariance[:3, :3] += KEYFRAME_SCALE**2 * np.outer(way, way)
        self._now = position.copy()
        return self.covariance


def _cross(v: Array) -> Array:
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])
