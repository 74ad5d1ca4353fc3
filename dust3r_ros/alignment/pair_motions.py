"""How the second camera of each pair stands to the first by the pair alone, where its estimator says so: in the pair's own unit.

Pointmaps place cameras only as well as their depths agree. A camera that the estimator has from what matches what is far surer than that:
depth that bends by a tenth moves it by a multiple of a short baseline. What is said here counts beside the objective, weighed as priors
are, and the less the more it contradicts the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.alignment.linear_system import Layout, LinearSystem
from dust3r_ros.alignment.priors import PATCHES
from dust3r_ros.alignment.problem import Array, State
from dust3r_ros.alignment.sim3 import crosses
from dust3r_ros.estimators import PairMotion, PairPrediction

DOUBT = 2.0  # how many sigmas off, over all six axes together, a motion counts half
TURNED = 1e-3  # what a rotation times its transpose may be off by
SCALE = 6  # which of a pair's unknowns is the logarithm of its scale


@dataclass(frozen=True, eq=False)
class SaidMotion:
    """What a pair says of its cameras, and how much of it counts."""

    motion: PairMotion
    share: float  # 0..1


class PairMotions:
    """Of a problem's pairs: `at` is the position of each image, `pairs` and what each says are in the problem's order."""

    def __init__(self, at: Mapping[int, int], pairs: Sequence[tuple[int, int]], motions: Sequence[PairMotion | None]) -> None:
        said = [(e, at[i], at[j], m) for e, ((i, j), m) in enumerate(zip(pairs, motions, strict=True)) if m is not None]
        self.unit = 1.0
        self._pair, self._first, self._second = np.array([row[:3] for row in said], np.int64).reshape(-1, 3).T
        self._rotation = np.array([m.rotation for *_, m in said]).reshape(-1, 3, 3)
        self._translation = np.array([m.translation for *_, m in said]).reshape(-1, 3)
        sigmas = np.array([[m.sigma_turn] * 3 + [m.sigma_move] * 3 for *_, m in said]).reshape(-1, 6)
        self._known = 1.0 / sigmas**2  # [K, 6]

    def __bool__(self) -> bool:
        return bool(len(self._pair))

    @property
    def told_by(self) -> NDArray[np.int64]:
        """[K] the positions of the pairs that have one."""
        return self._pair

    def weigh(self, objective: float, pairs: int) -> None:
        """Set `unit` from the objective that the scene has without them."""
        self.unit = objective / (PATCHES * 2 * pairs)

    def cost(self, state: State) -> float:
        """In the objective's units."""
        far = (self._known * self._error(state)[0] ** 2).sum(1)
        return 0.5 * self.unit * DOUBT**2 * float(np.log1p(far / DOUBT**2).sum())

    def shares(self, state: State) -> Array:
        """[K] in 0..1: how much of each motion counts, by how far the scene is from what it says."""
        return 1.0 / (1.0 + (self._known * self._error(state)[0] ** 2).sum(1) / DOUBT**2)

    def add_to(self, system: LinearSystem, layout: Layout, state: State, scale: float) -> None:
        """Their second order; `scale`: what the objective was multiplied by."""
        error, apart = self._error(state)
        known = self.unit * scale * self._known * self.shares(state)[:, None]
        to_first, inverse = state.rotation[self._first].transpose(0, 2, 1), 1.0 / state.pair_scale[self._pair]
        own = np.zeros((len(error), 6, 6))
        own[:, :3, :3] = to_first
        own[:, 3:, 3:] = inverse[:, None, None] * to_first
        own[:, 3:, :3] = -inverse[:, None, None] * to_first @ crosses(state.position[self._second])
        by_scale = np.concatenate([np.zeros((len(error), 3)), -apart], axis=1)
        jacobian = np.concatenate([-own, own, by_scale[..., None]], axis=2)
        weighted = jacobian.transpose(0, 2, 1) * known[:, None]
        pose = [layout.pose[n][:, None] + np.where(layout.pose[n] >= 0, 1, 0)[:, None] * np.arange(6) for n in (self._first, self._second)]
        system.add_prior(
            np.concatenate([*pose, (layout.pair[self._pair] + SCALE)[:, None]], axis=1),
            weighted @ jacobian,
            (weighted @ error[..., None])[..., 0],
        )

    def _error(self, state: State) -> tuple[Array, Array]:
        """[K, 6] rotation vectors and translations away from what was said, and [K, 3] the translations, both in the pair's unit."""
        to_first = state.rotation[self._first].transpose(0, 2, 1)
        moved = to_first @ (state.position[self._second] - state.position[self._first])[..., None]
        moved = moved[..., 0] / state.pair_scale[self._pair, None]
        turn = Rotation.from_matrix(to_first @ state.rotation[self._second] @ self._rotation.transpose(0, 2, 1)).as_rotvec()
        return np.concatenate([turn, moved - self._translation], axis=1), moved


def reversed_motion(said: SaidMotion) -> SaidMotion:
    """Camera i in camera j."""
    motion, back = said.motion, said.motion.rotation.T
    return SaidMotion(PairMotion(back, -back @ motion.translation, motion.sigma_turn, motion.sigma_move), said.share)


def usable(prediction: PairPrediction) -> PairMotion | None:
    """What a prediction says of its cameras; None where it says none, or what no camera does: it must not keep its points from the map."""
    said = prediction.motion
    if said is None:
        return None
    if said.rotation.shape != (3, 3) or said.translation.shape != (3,):
        return None
    values = [*said.rotation.ravel(), *said.translation, said.sigma_turn, said.sigma_move]
    if not np.isfinite(values).all() or min(said.sigma_turn, said.sigma_move) <= 0:
        return None
    return said if np.abs(said.rotation @ said.rotation.T - np.eye(3)).max() < TURNED and np.linalg.det(said.rotation) > 0 else None
