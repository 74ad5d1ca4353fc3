"""Similarity transforms of space: turn, stretch, move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.geometry.errors import GeometryError
from dust3r_ros.geometry.rotations import nearest_rotation, pose_matrix

Array = NDArray[np.float64]
EYE = np.eye(3)
LEAN = 1e-3  # by how much the axes of a rotation may fail to be of unit length and at right angles


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale * rotation @ x + translation, in float64. Raises GeometryError if that is no similarity."""

    scale: float
    rotation: Array  # [3, 3]
    translation: Array  # [3]

    def __post_init__(self) -> None:
        rotation, translation = np.array(self.rotation, np.float64), np.array(self.translation, np.float64)
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise GeometryError(f"similarity: scale is {self.scale}: give a finite one above 0")
        if rotation.shape != (3, 3) or not np.abs(rotation @ rotation.T - EYE).max() <= LEAN or np.linalg.det(rotation) < 0:
            raise GeometryError(f"similarity: {rotation.tolist()} is no rotation: give a 3x3 orthonormal matrix of determinant 1")
        if translation.shape != (3,) or not np.isfinite(translation).all():
            raise GeometryError(f"similarity: translation is {translation.tolist()}: give 3 finite numbers")
        rotation.flags.writeable = translation.flags.writeable = False

    @classmethod
    def identity(cls) -> Similarity:
        return cls(1.0, np.eye(3), np.zeros(3))

    @classmethod
    def from_matrix(cls, matrix: ArrayLike) -> Similarity:
        """From [4, 4]; the scale is the cube root of the determinant. Rigid poses are similarities of scale 1."""
        values = np.asarray(matrix, np.float64)
        determinant = float(np.linalg.det(values[:3, :3])) if values.shape == (4, 4) else float("nan")
        if not determinant > 0:
            raise GeometryError(
                f"similarity: matrix of shape {values.shape} and determinant {determinant:g}: give 4x4 with a rotation in it"
            )
        scale = float(np.cbrt(determinant))
        return cls(scale, values[:3, :3] / scale, values[:3, 3])

    @property
    def matrix(self) -> Array:
        """[4, 4]"""
        return pose_matrix(self.scale * self.rotation, self.translation)

    def apply(self, points: ArrayLike) -> Array:
        """[..., 3] -> [..., 3]"""
        return np.asarray(self.scale * (np.asarray(points, np.float64) @ self.rotation.T) + self.translation)

    def apply_pose(self, pose: ArrayLike) -> Array:
        """A camera-to-world pose [4, 4] in the new world: turned and moved, but still rigid (its own axes are not stretched)."""
        values = np.asarray(pose, np.float64)
        return pose_matrix(self.rotation @ values[:3, :3], self.apply(values[:3, 3]))

    def compose(self, first: Similarity) -> Similarity:
        """This one after `first`: `a.compose(b).apply(x) == a.apply(b.apply(x))`. Long chains stay rotations."""
        rotation = nearest_rotation(self.rotation @ first.rotation)
        return Similarity(self.scale * first.scale, rotation, self.apply(first.translation))

    __matmul__ = compose

    def inverse(self) -> Similarity:
        rotation = self.rotation.T
        return Similarity(1.0 / self.scale, rotation, -(rotation @ self.translation) / self.scale)
