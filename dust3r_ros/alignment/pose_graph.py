"""All keyframes at once, each moving as a whole: Gauss-Newton over similarities, joined by compressed links.

Error of a link: d = (relative^-1 S_i^-1 S_j) as an increment, weighed by its information. Links between neighbours are trusted; a loop's
weight falls off as Cauchy's, from a width at which every loop counts down to its own (graduated non-convexity; Yang et al., 2020), so that
a wrong loop ends with no weight instead of bending the map. Ways that were measured between keyframes (`lengths`) keep the scale even.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csc_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from dust3r_ros.alignment.lengths import Length, LengthFactors, length_factors
from dust3r_ros.alignment.link import Link
from dust3r_ros.alignment.sim3 import Array, Sim3, crosses
from dust3r_ros.alignment.similarity_table import SimilarityTable
from dust3r_ros.geometry import Similarity

STEPS = 30
SETTLED = 1e-5  # relative change of the cost
CONSISTENT = 300.0  # chi-square of 7 unknowns at which a loop weighs half; its information comes from guesses of how errors go together
NARROWER = 0.3  # of the width, step by step
REJECTED = 0.1  # a loop that ends with less weight is wrong
FIRST_DAMPING = 1e-6
REWEIGHED = 4  # times that the weights of measured lengths are found anew


@dataclass(frozen=True, eq=False)
class Graph:
    """The state of a pose graph: similarities from each keyframe's own frame and units to the world's."""

    nodes: SimilarityTable
    solved: NDArray[np.int64]  # those that may have moved, ascending
    rejected: tuple[tuple[int, int], ...] = ()  # loops that contradict the rest


def solve_pose_graph(
    nodes: Mapping[int, Similarity], links: Sequence[Link], lengths: Sequence[Length] = (), newest: int | None = None
) -> Graph:
    """The keyframes where all links agree best. The first keyframe of every connected part holds still.

    With `lengths` its size may change: the graph's mean size stays, as far as the lengths tell. `newest`: only so many of the newest
    move, the others stand; what that costs does not grow with the graph.
    """
    solved = SimilarityTable(nodes)
    order = solved.indices
    first = int(order[-newest]) if newest is not None and len(order) > newest else 0
    links = [link for link in links if (link.j >= first or link.i >= first) and link.i in solved and link.j in solved]
    if not links:
        return Graph(solved, order[order >= first])
    if first:
        order = np.array(sorted({*order[order >= first].tolist(), *(n for link in links for n in (link.i, link.j))}))
    at = {node: n for n, node in enumerate(order.tolist())}
    ends = np.array([(at[link.i], at[link.j]) for link in links])
    loop = np.array([link.loop for link in links])
    relative, information = Sim3.stack([link.relative for link in links]), np.stack([link.information for link in links])
    before = solved.at(order)
    measured = length_factors(lengths, at, before)
    free = movable(ends, len(order), measured) & (order >= first)[:, None]
    state, wrong = solve_links(before, free, ends, relative, information, loop, measured)
    rejected = tuple((links[k].i, links[k].j) for k in np.nonzero(wrong)[0])
    moved = order >= first
    solved.put(order[moved], state[np.flatnonzero(moved)])
    return Graph(solved, order[moved], rejected)


def solve_links(
    state: Sim3,  # [N] nodes
    free: NDArray[np.bool_],  # [N, 7] what of them may move: turn, shift, size
    ends: NDArray[np.int64],  # [L, 2] rows of the nodes that a link joins
    relative: Sim3,  # [L] the second node in the first one's frame
    information: Array,  # [L, 7, 7]
    loop: NDArray[np.bool_],  # [L] those that may be wrong
    lengths: LengthFactors | None = None,
) -> tuple[Sim3, NDArray[np.bool_]]:
    """The nodes where the links and lengths agree best, and [L] which loops contradict the rest."""
    problem = _Problem(relative.inverse(), ends, information)
    problem.lengths = lengths
    width = np.inf
    weight = np.ones(len(ends))
    for step in range(STEPS if loop.any() else REWEIGHED if lengths is not None else 1):
        state = _settle(problem, state, free, weight)
        if problem.lengths is not None and step < REWEIGHED:
            problem.lengths.weigh(state)
        if not loop.any():
            continue
        error = problem.chi_square(state)
        width = max(CONSISTENT, min(NARROWER * width, float(error[loop].max())))
        previous, weight = weight, np.where(loop, 1.0 / (1.0 + error / width), 1.0)
        if width == CONSISTENT and np.abs(weight - previous).max() < 0.02:
            break
    wrong = loop & (weight < REJECTED)
    if wrong.any():
        state = _settle(problem, state, free, np.where(wrong, 0.0, weight))
    return state, wrong


class _Problem:
    def __init__(self, expected: Sim3, ends: NDArray[np.int64], information: Array) -> None:
        """expected: the links' inverse relatives."""
        self.expected, self.ends, self.information = expected, ends, information
        self.lengths: LengthFactors | None = None
        self.adjoint = expected.adjoint()  # of an increment at i, seen at j

    def error(self, state: Sim3) -> Sim3:
        return self.expected @ state[self.ends[:, 0]].inverse() @ state[self.ends[:, 1]]

    def cost(self, state: Sim3, weight: Array) -> float:
        links = float((weight * self.chi_square(state)).sum())
        return links if self.lengths is None else links + self.lengths.cost(state)

    def chi_square(self, state: Sim3) -> Array:
        d = self.error(state).difference()
        return np.asarray(np.einsum("na,nab,nb->n", d, self.information, d))

    def equations(self, state: Sim3, weight: Array) -> tuple[csc_matrix, Array]:
        error = self.error(state)
        d = error.difference()
        count = len(d)
        turn = _turn_inverse(d[:, :3])
        at_j, at_i = np.zeros((count, 7, 7)), np.zeros((count, 7, 7))
        at_j[:, :3, :3], at_j[:, 3:6, 3:6], at_j[:, 6, 6] = turn, error.scale[:, None, None] * error.rotation, 1.0
        # An increment at i acts on the left of the error, the other way.
        left = np.zeros((count, 7, 7))
        left[:, :3, :3] = turn @ error.rotation.transpose(0, 2, 1)
        left[:, 3:6, :3], left[:, 3:6, 3:6] = -crosses(error.translation), np.eye(3)
        left[:, 3:6, 6], left[:, 6, 6] = error.translation, 1.0
        at_i = -left @ self.adjoint
        known = weight[:, None, None] * self.information
        rows, columns, values = [], [], []
        size = 7 * len(state)
        gradient = np.zeros(size)
        seven = np.arange(7)
        for a, jacobian_a in enumerate((at_i, at_j)):
            weighted = jacobian_a.transpose(0, 2, 1) @ known
            own = 7 * self.ends[:, a, None] + seven
            np.add.at(gradient, own.ravel(), np.einsum("nab,nb->na", weighted, d).ravel())
            for b, jacobian_b in enumerate((at_i, at_j)):
                other = 7 * self.ends[:, b, None] + seven
                rows.append(np.broadcast_to(own[:, :, None], (count, 7, 7)).ravel())
                columns.append(np.broadcast_to(other[:, None, :], (count, 7, 7)).ravel())
                values.append((weighted @ jacobian_b).ravel())
        matrix = coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size)).tocsc()
        if self.lengths is not None:
            more, slope = self.lengths.equations(state)
            matrix, gradient = (matrix + more).tocsc(), gradient + slope
        return matrix, gradient


def _settle(problem: _Problem, state: Sim3, free: NDArray[np.bool_], weight: Array) -> Sim3:
    """Levenberg-Marquardt with these weights."""
    unknown = free.ravel()
    cost, damping = problem.cost(state, weight), FIRST_DAMPING
    for _ in range(STEPS):
        matrix, gradient = problem.equations(state, weight)
        inner = matrix[unknown][:, unknown].tocsc()
        diagonal = inner.diagonal()
        found = None
        while found is None and damping < 1e6:
            damped = inner.copy()
            damped.setdiag(diagonal * (1.0 + damping) + 1e-12 * diagonal.max())
            step = np.zeros(len(unknown))
            try:
                step[unknown] = splu(damped, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(-gradient[unknown])
            except RuntimeError:  # singular
                damping *= 10.0
                continue
            candidate = state.moved(step.reshape(-1, 7))
            value = problem.cost(candidate, weight)
            if value <= cost:
                found = candidate
            else:
                damping *= 10.0
        if found is None:
            return state
        gain, state, cost, damping = cost - value, found, value, max(damping / 10.0, 1e-9)
        if gain <= SETTLED * (cost + 1e-12):
            break
    return state


def movable(ends: NDArray[np.int64], count: int, lengths: LengthFactors | None = None) -> NDArray[np.bool_]:
    """[N, 7]: all but the first of every connected part, which may change its size if something in its part was measured."""
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, part = connected_components(graph, directed=False)
    first = np.unique(part, return_index=True)[1]
    free = np.ones((count, 7), bool)
    free[first] = False
    if lengths is not None:
        within = lengths.ends[part[lengths.ends[:, 0]] == part[lengths.ends[:, 1]]]
        free[first[np.unique(part[within[:, 0]])], 6] = True
    return free


def _turn_inverse(vector: Array) -> Array:
    """[N, 3, 3]: the inverse of the right Jacobian of rotation vectors."""
    angle = np.linalg.norm(vector, axis=1)[:, None, None]
    cross = crosses(vector)
    safe = np.clip(angle, 1e-6, 3.1)  # at pi the factor has no bound; a difference of half a turn has no side to turn to anyway
    factor = np.where(angle < 1e-3, 1.0 / 12.0, 1.0 / safe**2 - (1.0 + np.cos(safe)) / (2.0 * safe * np.sin(safe)))
    return np.asarray(np.eye(3) + 0.5 * cross + factor * (cross @ cross))
