"""The images' second-order models as one sparse, symmetric system: put together, damped, and solved.

Images are ordered so that neighbours lie close (reverse Cuthill-McKee), and pairs with their earlier image: a sequence, and a loop too,
gives a narrow band. What is left, graphs with edges all over, goes to a sparse factorisation, a small one to a dense one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cho_solve_banded, cholesky_banded
from scipy.sparse import coo_matrix, csc_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import splu

from dust3r_ros.alignment.compiled import EDGE, POSE
from dust3r_ros.alignment.compiled_assembly import assemble, entries
from dust3r_ros.alignment.problem import Problem

Array = NDArray[np.float64]
Index = NDArray[np.int64]

DENSE = 500  # unknowns up to which a dense factorisation is the fastest
BANDED = 0.25  # of the unknowns: a wider band goes to the sparse factorisation
FULL = 0.3  # of the entries: a fuller matrix is dense
TINY = 1e-12


@dataclass(eq=False)
class Model:
    """Second order of every image alone, from `compiled.linearise`; `gram[n]` is what eliminating its depths takes away."""

    products: Array  # [M, 8, 8]
    gradient: Array  # [M, 8]
    gram: Array  # the images' [7 K + 1, 7 K + 1], one after the other
    shared_slope: Array  # [7 M + N]


@dataclass(eq=False)
class Layout:
    """Where each unknown lies: `pair[e]`, `pose[n]` and `focal[n]` are the first of each's; fixed ones are at -1."""

    pair: Index
    pose: Index
    focal: Index
    size: int
    start: Index  # of the problem's sides
    local: Index  # [7 M + 7 N] of the images' own unknowns
    gram_start: Index  # [N]
    is_scale: NDArray[np.bool_]  # [size] log scales of pairs
    kind: str  # dense, banded or sparse
    band: int
    pattern: tuple[Index, csc_matrix] | None  # sparse: slot of each entry, and the matrix with its slots' numbers


def make_layout(
    problem: Problem, fixed_pose: NDArray[np.bool_], fixed_focal: NDArray[np.bool_], group: Index, ties: Sequence[tuple[int, int]] = ()
) -> Layout:
    """group [N]: images of one number share their focal length. `ties`: positions of images that a prior joins, paired or not."""
    count, pairs, image = len(problem.images), problem.pairs, problem.image
    ends = image[problem.sides_of_pair]  # [E, 2]
    is_small = EDGE * pairs + (POSE + 1) * count <= DENSE  # then any order will do
    order = np.arange(count) if is_small else _order(ends, count)
    rank = np.argsort(order)
    pair, pose, focal = np.full(pairs, -1), np.full(count, -1), np.full(count, -1)
    shared = np.bincount(group, minlength=int(group.max()) + 1)[group] > 1
    starts: list[list[int]] = [[] for _ in range(count)]
    for e, n in enumerate(order[rank[ends].min(1)]):
        starts[n].append(e)
    at, scales = 0, []
    for n in order:
        for e in starts[n]:
            pair[e], at = at, at + EDGE
            scales.append(at - 1)
        if not fixed_pose[n]:
            pose[n], at = at, at + POSE
        if not fixed_focal[n] and not shared[n]:
            focal[n], at = at, at + 1
    of_group: dict[int, int] = {}
    for n in range(count):  # those that several images share go to the end
        if not fixed_focal[n] and shared[n]:
            if int(group[n]) not in of_group:
                of_group[int(group[n])], at = at, at + 1
            focal[n] = of_group[int(group[n])]
    local = []
    for n in range(count):
        local.append((pair[problem.pair[problem.start[n] : problem.start[n + 1]]][:, None] + np.arange(EDGE)).ravel())
        local.append(np.where(pose[n] >= 0, pose[n] + np.arange(POSE), -1))
        local.append(focal[n : n + 1])
    is_scale = np.zeros(at, bool)
    is_scale[scales] = True
    inner = EDGE * np.diff(problem.start) + 1
    gram_start = np.concatenate([[0], np.cumsum(inner * inner)[:-1]]).astype(np.int64)
    flat = np.concatenate(local).astype(np.int64)
    tied = max((abs(int(pose[i] - pose[j])) + POSE - 1 for i, j in ties if min(pose[i], pose[j]) >= 0), default=0)
    kind, band, pattern = _kind(problem.start, flat, at, tied)
    return Layout(pair, pose, focal, at, problem.start, flat, gram_start, is_scale, kind, band, pattern)


def _order(ends: Index, count: int) -> Index:
    """Images so that pairs join near ones: as they come, or reordered where that is narrower."""
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    other = reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True).astype(np.int64)
    width = [int(np.abs(np.diff(rank[ends], axis=1)).max(initial=0)) for rank in (np.arange(count), np.argsort(other))]
    return np.arange(count) if width[0] <= width[1] else other


def _kind(start: Index, local: Index, size: int, band: int) -> tuple[str, int, tuple[Index, csc_matrix] | None]:
    if size <= DENSE:
        return "dense", -1, None
    for n in range(len(start) - 1):
        own = local[EDGE * start[n] + 7 * n : EDGE * start[n + 1] + 7 * n + 7]
        own = own[own >= 0]
        band = max(band, int(own.max(initial=0) - own.min(initial=size)))
    if band <= BANDED * size:
        return "banded", band, None
    if (EDGE * np.diff(start).astype(float) ** 2).sum() * EDGE > FULL * size * size:
        return "dense", -1, None
    rows, columns = entries(start, local)
    keys, slot = np.unique(columns * size + rows, return_inverse=True)
    low = csc_matrix((np.arange(1.0, len(keys) + 1), (keys % size, keys // size)), shape=(size, size))
    return "sparse", -2, (slot.astype(np.int64), low)


class LinearSystem:
    """H x = -g of one linearisation; may be solved with one damping after another."""

    def __init__(self, model: Model, layout: Layout) -> None:
        self._layout, size = layout, layout.size
        self.gradient = np.zeros(size)
        shape = (layout.band + 1, size) if layout.kind == "banded" else (size, size)
        if layout.pattern is not None:
            shape = (1, len(layout.pattern[0]))
        matrix = np.zeros(shape)
        assemble(
            layout.start,
            model.products,
            model.gradient,
            model.gram,
            layout.gram_start,
            model.shared_slope,
            layout.local,
            layout.band,
            matrix,
            self.gradient,
        )
        if layout.pattern is not None:
            slot, low = layout.pattern
            values = np.bincount(slot, matrix[0], len(low.data))
            half = csc_matrix((values[low.data.astype(np.int64) - 1], low.indices, low.indptr), shape=low.shape)
            self._diagonal = np.asarray(half.diagonal(), np.float64)
            half.setdiag(0.0)
            self._matrix: Any = (half + half.T).tocsc()
        else:
            self._matrix = matrix
            self._diagonal = matrix[0].copy() if layout.kind == "banded" else matrix.diagonal().copy()

    def add_prior(self, at: Index, information: Array, gradient: Array) -> None:
        """Adds to the blocks of unknowns `at` [B, w]: information [B, w, w], gradient [B, w]; those at -1 are left out."""
        free = at >= 0
        np.add.at(self.gradient, at[free], gradient[free])
        np.add.at(self._diagonal, at[free], np.diagonal(information, axis1=1, axis2=2)[free])
        rows, columns = np.broadcast_arrays(at[:, :, None], at[:, None, :])
        low = (rows > columns) & (columns >= 0)
        rows, columns, values = rows[low], columns[low], information[low]
        if self._layout.kind == "banded":
            np.add.at(self._matrix, (rows - columns, columns), values)
        elif self._layout.kind == "dense":
            np.add.at(self._matrix, (rows, columns), values)
        else:
            half = coo_matrix((values, (rows, columns)), shape=self._matrix.shape).tocsc()
            self._matrix = (self._matrix + half + half.T).tocsc()

    def step(self, damping: float, free_scale: bool, pull: float = 0.0) -> Array | None:
        """x [size]; None if the damped matrix is not positive. Unless `free_scale`, the sum of the pairs' log scales stays.

        `pull`: what each log scale gains by growing, because the objective is divided by the scales' geometric mean.
        """
        scales = self._layout.is_scale.astype(np.float64)
        downhill = pull * scales - self.gradient
        wanted = [downhill] if free_scale else [downhill, scales]
        solved = self._solve(np.stack(wanted, axis=1), damping)
        if solved is None or not np.isfinite(solved).all():
            return None
        if free_scale:
            return np.asarray(solved[:, 0])
        along = solved[:, 1]
        return np.asarray(solved[:, 0] - along * (scales @ solved[:, 0]) / (scales @ along))

    def _solve(self, wanted: Array, damping: float) -> Array | None:
        diagonal = self._diagonal * (1.0 + damping) + TINY * max(float(self._diagonal.max()), 1e-300)
        try:
            if self._layout.kind == "dense":
                matrix = self._matrix.copy()
                np.fill_diagonal(matrix, diagonal)
                return np.asarray(cho_solve(cho_factor(matrix, lower=True, check_finite=False), wanted, check_finite=False))
            if self._layout.kind == "banded":
                matrix = self._matrix.copy()
                matrix[0] = diagonal
                factor = cholesky_banded(matrix, lower=True, check_finite=False)
                return np.asarray(cho_solve_banded((factor, True), wanted, check_finite=False))
            sparse = self._matrix.copy()
            sparse.setdiag(diagonal)
            return np.asarray(splu(sparse, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(wanted))
        except (LinAlgError, RuntimeError):  # not positive; or singular
            return None
