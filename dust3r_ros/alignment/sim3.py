"""Many similarity transforms at once: x -> s R x + t. Increments (w, t, sigma), 7 each, are applied on the right: S (+) d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import Similarity, nearest_rotation

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sim3:
    scale: Array  # [N]
    rotation: Array  # [N, 3, 3]
    translation: Array  # [N, 3]

    @classmethod
    def stack(cls, transforms: Sequence[Similarity]) -> Sim3:
        return cls(
            np.array([t.scale for t in transforms], np.float64),
            np.array([t.rotation for t in transforms], np.float64).reshape(-1, 3, 3),
            np.array([t.translation for t in transforms], np.float64).reshape(-1, 3),
        )

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, index: NDArray[np.int64] | slice) -> Sim3:
        return Sim3(self.scale[index], self.rotation[index], self.translation[index])

    def __matmul__(self, other: Sim3) -> Sim3:
        return Sim3(
            self.scale * other.scale,
            self.rotation @ other.rotation,
            self.scale[:, None] * np.einsum("nij,nj->ni", self.rotation, other.translation) + self.translation,
        )

    def inverse(self) -> Sim3:
        back = self.rotation.transpose(0, 2, 1)
        return Sim3(1.0 / self.scale, back, -np.einsum("nij,nj->ni", back, self.translation) / self.scale[:, None])

    def moved(self, step: Array) -> Sim3:
        """S (+) step [N, 7]."""
        return self @ Sim3(np.exp(step[:, 6]), Rotation.from_rotvec(step[:, :3]).as_matrix(), step[:, 3:6])

    def difference(self) -> Array:
        """The increment [N, 7] from the identity: the inverse of `moved`."""
        return np.concatenate([Rotation.from_matrix(self.rotation).as_rotvec(), self.translation, np.log(self.scale)[:, None]], axis=1)

    def adjoint(self) -> Array:
        """[N, 7, 7]: what an increment on the right of S is on its left."""
        found = np.zeros((len(self), 7, 7))
        found[:, :3, :3] = self.rotation
        found[:, 3:6, 3:6] = self.scale[:, None, None] * self.rotation
        found[:, 3:6, :3] = crosses(self.translation) @ self.rotation
        found[:, 3:6, 6] = -self.translation
        found[:, 6, 6] = 1.0
        return found

    def one(self, n: int) -> Similarity:
        return Similarity(float(self.scale[n]), nearest_rotation(self.rotation[n]), self.translation[n].copy())


def crosses(v: Array) -> Array:
    """[N, 3] -> [N, 3, 3]: v x."""
    found = np.zeros((len(v), 3, 3))
    found[:, 0, 1], found[:, 0, 2], found[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    return found - found.transpose(0, 2, 1)
