"""What is known beforehand, but not for certain: poses, motions between two images, focal lengths, each with its covariance.

The objective is a mean of distances, a prior a negative log-likelihood. They are weighed by taking distances as Laplace distributed with
the mean that they have, and the pixels of a view as PATCHES independent ones, because errors of neighbouring pixels go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.alignment.known_poses import pose_similarity
from dust3r_ros.alignment.problem import State
from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import GeometryError, Similarity, procrustes

if TYPE_CHECKING:
    from dust3r_ros.alignment.linear_system import Layout, LinearSystem

Array = NDArray[np.float64]

PATCHES = 16  # independent errors in one view of one pair


class PriorError(Dust3rError):
    """A prior that cannot be used."""


@dataclass(frozen=True, eq=False)
class PosePrior:
    """A camera-to-world pose that is nearly or partly known.

    covariance [6, 6]: rotation (rad^2, about the world's axes), then translation (squared world units); infinite where not known.
    """

    pose: Array  # [4, 4]
    covariance: Array


@dataclass(frozen=True, eq=False)
class MotionPrior:
    """A pose of camera `j` in camera `i`, from odometry or a rig; covariance [6, 6] about camera i's axes, rotation first."""

    i: int
    j: int
    pose: Array  # [4, 4]
    covariance: Array


@dataclass(frozen=True)
class FocalPrior:
    """A focal length that is nearly known."""

    focal: float  # pixels
    sigma: float  # relative: 0.05 is 5 %


def information(covariance: Array, what: str) -> Array:
    """The inverse [6, 6], zero where nothing is known. Raises PriorError if it is no covariance."""
    covariance = np.asarray(covariance, np.float64)
    if covariance.shape != (6, 6) or np.isnan(covariance).any():
        raise PriorError(f"covariance of {what} has shape {covariance.shape}: give [6, 6] without NaN, rotation before translation")
    known = np.isfinite(np.diag(covariance))
    inner = covariance[np.ix_(known, known)]
    if not np.allclose(inner, inner.T, rtol=1e-6, atol=0) or (known.any() and not np.linalg.eigvalsh(inner).min() > 0):
        raise PriorError(f"covariance of {what} is not symmetric and positive: give variances above 0, or infinity for what is not known")
    found = np.zeros((6, 6))
    found[np.ix_(known, known)] = np.linalg.inv(inner)
    return found


class Priors:
    """The priors on one problem's images; `unit`: what one unit of negative log-likelihood is in the objective."""

    def __init__(
        self,
        at: Mapping[int, int],
        poses: Mapping[int, PosePrior],
        motions: Sequence[MotionPrior],
        focals: Mapping[int, FocalPrior],
    ) -> None:
        """`at`: position of each image."""
        self.unit = 1.0
        self._poses = [(at[n], p.pose, information(p.covariance, f"image {n}'s pose")) for n, p in poses.items() if n in at]
        self._motions = [
            (at[m.i], at[m.j], m.pose, information(m.covariance, f"the motion from image {m.i} to {m.j}"))
            for m in motions
            if m.i in at and m.j in at
        ]
        self._focals = [(at[n], np.log(p.focal), 1.0 / p.sigma**2) for n, p in focals.items() if n in at]

    def __bool__(self) -> bool:
        return bool(self._poses or self._motions or self._focals)

    @property
    def has_poses(self) -> bool:
        return bool(self._poses)

    @property
    def hold_scale(self) -> bool:
        return len(self._poses) > 1 or bool(self._motions)

    @property
    def ties(self) -> list[tuple[int, int]]:
        """Positions of the images that a motion joins."""
        return [(i, j) for i, j, _, _ in self._motions]

    def frame(self, state: State) -> Similarity | None:
        """What carries a state into the frame of the poses that are known in full, or else of three and more positions; None if none is."""
        whole = [(n, pose) for n, pose, known in self._poses if known[:3].any() and known[3:].any()]
        if whole:
            return pose_similarity(state.poses[[n for n, _ in whole]], np.stack([pose for _, pose in whole]))
        places = [(n, pose[:3, 3]) for n, pose, known in self._poses if known[3:].any()]
        try:
            return procrustes(state.position[[n for n, _ in places]], np.stack([place for _, place in places])) if places else None
        except GeometryError:  # too few, or on a line
            return None

    def weigh(self, objective: float, pairs: int) -> None:
        """Set `unit` from the objective that the scene has without them."""
        self.unit = objective / (PATCHES * 2 * pairs)

    def scale_of_motions(self, state: State) -> float | None:
        """How much larger the motions are than those of the state; None if none says."""
        ratios = []
        for i, j, pose, _ in self._motions:
            moved, said = np.linalg.norm(state.position[j] - state.position[i]), np.linalg.norm(pose[:3, 3])
            if moved > 1e-9 and said > 1e-9:
                ratios.append(said / moved)
        return float(np.median(ratios)) if ratios else None

    def cost(self, state: State) -> float:
        """In the objective's units."""
        total = 0.0
        for n, pose, known in self._poses:
            error = _pose_error(state, n, pose)
            total += float(error @ known @ error)
        for i, j, pose, known in self._motions:
            error = _motion_error(state, i, j, pose)
            total += float(error @ known @ error)
        for n, focal, weight in self._focals:
            total += float((np.log(state.focal[n]) - focal) ** 2 * weight)
        return 0.5 * total * self.unit

    def add_to(self, system: LinearSystem, layout: Layout, state: State, scale: float) -> None:
        """Their second order; `scale`: what the objective was multiplied by."""
        unit = self.unit * scale
        for n, pose, known in self._poses:
            jacobian = np.eye(6)
            jacobian[3:, :3] = -_cross(state.position[n])
            _add(system, layout.pose[n] + _six(layout.pose[n]), jacobian, unit * known, _pose_error(state, n, pose))
        for i, j, pose, known in self._motions:
            to_i = state.rotation[i].T
            # Both move with the world on the left: what counts is the difference of their increments, seen from camera i.
            own = np.zeros((6, 6))
            own[:3, :3], own[3:, 3:], own[3:, :3] = to_i, to_i, -to_i @ _cross(state.position[j])
            index = np.concatenate([layout.pose[i] + _six(layout.pose[i]), layout.pose[j] + _six(layout.pose[j])])
            _add(system, index, np.concatenate([-own, own], axis=1), unit * known, _motion_error(state, i, j, pose))
        for n, focal, weight in self._focals:
            error = np.array([np.log(state.focal[n]) - focal])
            _add(system, layout.focal[n : n + 1], np.eye(1), unit * np.array([[weight]]), error)


def _six(first: np.int64) -> NDArray[np.int64]:
    return np.arange(6) if first >= 0 else np.zeros(6, np.int64)


def _add(system: LinearSystem, index: NDArray[np.int64], jacobian: Array, known: Array, error: Array) -> None:
    weighted = jacobian.T @ known
    system.add_prior(index[None], (weighted @ jacobian)[None], (weighted @ error)[None])


def _pose_error(state: State, n: int, pose: Array) -> Array:
    turn = Rotation.from_matrix(state.rotation[n] @ pose[:3, :3].T).as_rotvec()
    return np.concatenate([turn, state.position[n] - pose[:3, 3]])


def _motion_error(state: State, i: int, j: int, pose: Array) -> Array:
    to_i = state.rotation[i].T
    turn = Rotation.from_matrix(to_i @ state.rotation[j] @ pose[:3, :3].T).as_rotvec()
    return np.concatenate([turn, to_i @ (state.position[j] - state.position[i]) - pose[:3, 3]])


def _cross(v: Array) -> Array:
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])
