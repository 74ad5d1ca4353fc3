"""Ways between keyframes that something else has measured, as factors of the pose graph: they keep its scale even along the way.

Error of a length: log |t_j - t_i| - log L - g, by its standard deviation. g is the robust mean of these logarithms as the graph lies before
it is solved: how large the whole is stays with whoever knows it; here only drift of the scale from one part to another counts. How far
single lengths can be trusted is told by how they differ from their neighbours in time, since drift changes slowly and noise does not.
Wheels that slip differ by more, and fall out robustly: first by their neighbours, then by Cauchy's weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.sparse import coo_matrix, csc_matrix, diags

from dust3r_ros.alignment.sim3 import Array, Sim3

FEWEST = 6  # lengths that say anything about evenness
NEIGHBOURS = 9  # lengths whose median tells what one of them should be about
LEAST_NOISE = 0.01  # log: no odometry is better over the way between a few keyframes
SLIPPED = 4.0  # standard deviations from its neighbours' median beyond which a length is left out
CAUCHY = 5.0  # standard deviations at which a length weighs half: what the links insist on leaves errors that are no slip


@dataclass(frozen=True)
class Length:
    """How far keyframe `j` is from keyframe `i`, by a measurement of its own; in order of time, all in the same unit."""

    i: int
    j: int
    length: float


class LengthFactors:
    """Lengths as rows of the graph's equations; `deviation` of their logarithms is one for all."""

    def __init__(self, ends: NDArray[np.int64], logs: Array, state: Sim3) -> None:
        """ends [M, 2] of the state's rows; logs [M] of the lengths that were measured."""
        off = _log_distance(ends, state) - logs
        local = median_filter(off, size=min(NEIGHBOURS, len(off) // 2 * 2 - 1), mode="nearest")
        noise = 1.4826 * float(np.median(np.abs(off - local)))
        self.deviation = max(noise, LEAST_NOISE)
        kept = np.abs(off - local) < SLIPPED * self.deviation
        self.ends, self.logs = ends[kept], logs[kept]
        self.mean = float(np.median(off[kept])) if kept.any() else 0.0
        self.weight = np.ones(int(kept.sum()))

    def __len__(self) -> int:
        return len(self.logs)

    def residual(self, state: Sim3) -> Array:
        """[M] in standard deviations."""
        return (_log_distance(self.ends, state) - self.logs - self.mean) / self.deviation

    def weigh(self, state: Sim3) -> None:
        """Cauchy's weights, as the graph lies now."""
        self.weight = 1.0 / (1.0 + (self.residual(state) / CAUCHY) ** 2)

    def cost(self, state: Sim3) -> float:
        return float((self.weight * self.residual(state) ** 2).sum())

    def equations(self, state: Sim3) -> tuple[csc_matrix, Array]:
        """Their part of the normal matrix [7N, 7N] and of the gradient [7N]: only the cameras' places matter."""
        way = state.translation[self.ends[:, 1]] - state.translation[self.ends[:, 0]]
        distance = np.maximum(np.linalg.norm(way, axis=1), 1e-12)
        slope = way / (distance**2 * self.deviation)[:, None]  # of the residual, by the place of j
        columns, values = [], []
        for end, sign in ((0, -1.0), (1, 1.0)):
            frame = self.ends[:, end]
            values.append(sign * state.scale[frame][:, None] * np.einsum("na,nab->nb", slope, state.rotation[frame]))
            columns.append(7 * frame[:, None] + np.arange(3, 6))
        column, value = np.hstack(columns), np.hstack(values)
        rows = np.repeat(np.arange(len(self)), 6)
        jacobian = coo_matrix((value.ravel(), (rows, column.ravel())), shape=(len(self), 7 * len(state))).tocsr()
        weighted = diags(self.weight) @ jacobian
        return (jacobian.T @ weighted).tocsc(), np.asarray(weighted.T @ self.residual(state))


def length_factors(lengths: Sequence[Length], at: Mapping[int, int], state: Sim3) -> LengthFactors | None:
    """Of the lengths whose keyframes are in the graph (`at`: their rows); None for too few to say anything."""
    known = [one for one in lengths if one.i in at and one.j in at and one.i != one.j and one.length > 0]
    if len(known) < FEWEST:
        return None
    ends = np.array([(at[one.i], at[one.j]) for one in known])
    apart = np.linalg.norm(state.translation[ends[:, 1]] - state.translation[ends[:, 0]], axis=1) > 0
    if int(apart.sum()) < FEWEST:
        return None
    found = LengthFactors(ends[apart], np.log([one.length for one in known])[apart], state)
    return found if len(found) >= FEWEST else None


def _log_distance(ends: NDArray[np.int64], state: Sim3) -> Array:
    return np.log(np.maximum(np.linalg.norm(state.translation[ends[:, 1]] - state.translation[ends[:, 0]], axis=1), 1e-12))
