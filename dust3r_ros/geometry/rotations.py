"""Rotations and rigid poses. Quaternions are (x, y, z, w), as in ROS and TUM files; poses are 4x4."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry.errors import GeometryError

Array = NDArray[np.float64]


def quaternion_from_matrix(rotation: ArrayLike) -> Array:
    """[..., 3, 3] rotation -> [..., 4] unit quaternion x y z w with w >= 0."""
    matrix = np.asarray(rotation, np.float64)
    if matrix.ndim == 2:
        return _quaternion(matrix)
    flat = Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_quat(canonical=True)
    return np.asarray(flat.reshape(*matrix.shape[:-2], 4))


def _quaternion(matrix: Array) -> Array:
    """Of one rotation, by its largest component (Shepperd, 1978): a tenth of what SciPy's checks take."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    largest = max(range(4), key=(a, e, i, a + e + i).__getitem__)
    if largest == 0:
        found = (1.0 + a - e - i, b + d, c + g, h - f)
    elif largest == 1:
        found = (b + d, 1.0 - a + e - i, f + h, c - g)
    elif largest == 2:
        found = (c + g, f + h, 1.0 - a - e + i, d - b)
    else:
        found = (h - f, c - g, d - b, 1.0 + a + e + i)
    length = math.copysign(math.sqrt(sum(one * one for one in found)), found[3])
    return np.array(found) / length


def matrix_from_quaternion(quaternion: ArrayLike) -> Array:
    """[..., 4] quaternion x y z w, of any length but 0 -> [..., 3, 3] rotation."""
    values = np.asarray(quaternion, np.float64)
    if not (np.isfinite(values).all() and (np.linalg.norm(values, axis=-1) > 1e-9).all()):
        raise GeometryError(f"quaternion {values.tolist()} is no rotation: give a finite one that is not all zeros")
    return np.asarray(Rotation.from_quat(values.reshape(-1, 4)).as_matrix().reshape(*values.shape[:-1], 3, 3))


def rotation_angle(rotation: ArrayLike) -> float:
    """Angle of a 3x3 rotation in radians, 0..pi; exact for tiny angles too."""
    x, y, z, w = _quaternion(np.asarray(rotation, np.float64)).tolist()
    return 2.0 * math.atan2(math.hypot(x, y, z), w)


def nearest_rotation(matrix: ArrayLike) -> Array:
    """The rotation R that maximises trace(R^T M), and is nearest to the 3x3 matrix in the Frobenius norm (Kabsch)."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64))
    return np.asarray((u * (1.0, 1.0, np.sign(np.linalg.det(u @ vt)))) @ vt)


def pose_matrix(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """[4, 4] from a 3x3 rotation and 3 numbers."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


def inverse_pose(pose: ArrayLike) -> Array:
    """The inverse of a rigid [4, 4] pose."""
    matrix = np.asarray(pose, np.float64)
    return pose_matrix(matrix[:3, :3].T, -matrix[:3, :3].T @ matrix[:3, 3])


def transform_points(pose: ArrayLike, points: ArrayLike) -> Array:
    """[..., 3] points through a [4, 4] pose."""
    matrix = np.asarray(pose, np.float64)
    return np.asarray(np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3])
