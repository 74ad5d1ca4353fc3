"""The images' normal equations as one sparse, symmetric system: put together, damped, and solved.

Pairs are ordered with their earlier image, so that a sequence gives a narrow band; a graph with distant edges goes to a sparse
factorisation, a small one to a dense one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cho_solve_banded, cholesky_banded
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from dust3r_ros.alignment.normal_equations import EDGE, POSE, NormalEquations
from dust3r_ros.alignment.problem import Problem

Array = NDArray[np.float64]

DENSE = 700  # unknowns up to which a dense factorisation is the fastest
BANDED = 0.25  # of the unknowns: a wider band goes to the sparse factorisation
TINY = 1e-12


@dataclass(eq=False)
class Layout:
    """Where each unknown lies: `pair[e]`, `pose[n]` and `focal[n]` are the first of each's; fixed ones are at -1."""

    pair: NDArray[np.int64]
    pose: NDArray[np.int64]
    focal: NDArray[np.int64]
    size: int
    local: NDArray[np.int64]  # [N, M] of the images' own unknowns
    is_scale: NDArray[np.bool_]  # [size] log scales of pairs


def make_layout(
    problem: Problem,
    first_image: NDArray[np.int64],
    fixed_pose: NDArray[np.bool_],
    fixed_focal: NDArray[np.bool_],
    group: NDArray[np.int64],
) -> Layout:
    """first_image [E]: the earlier of each pair's two images (positions); group [N]: images of one number share their focal length."""
    count, pairs = len(problem.images), len(first_image)
    pair, pose, focal = np.full(pairs, -1), np.full(count, -1), np.full(count, -1)
    of_group: dict[int, int] = {}
    shared = np.bincount(group, minlength=int(group.max()) + 1)[group] > 1
    at, scales = 0, []
    starts: list[list[int]] = [[] for _ in range(count)]
    for e, n in enumerate(first_image):
        starts[int(n)].append(e)
    for n in range(count):
        for e in starts[n]:
            pair[e], at = at, at + EDGE
            scales.append(at - 1)
        if not fixed_pose[n]:
            pose[n], at = at, at + POSE
        if not fixed_focal[n] and not shared[n]:
            focal[n], at = at, at + 1
    for n in range(count):  # those that several images share go to the end
        if not fixed_focal[n] and shared[n]:
            if int(group[n]) not in of_group:
                of_group[int(group[n])], at = at, at + 1
            focal[n] = of_group[int(group[n])]
    edges = problem.edge.numpy()
    k = edges.shape[1]
    local = np.full((count, EDGE * k + POSE + 1), -1)
    local[:, : EDGE * k] = (pair[edges][..., None] + np.arange(EDGE)).reshape(count, -1)
    local[:, EDGE * k : EDGE * k + POSE] = np.where(pose[:, None] >= 0, pose[:, None] + np.arange(POSE), -1)
    local[:, -1] = focal
    is_scale = np.zeros(at, bool)
    is_scale[scales] = True
    return Layout(pair, pose, focal, at, local, is_scale)


class LinearSystem:
    """H x = -g of one linearisation; may be solved with one damping after another."""

    def __init__(self, equations: NormalEquations, layout: Layout) -> None:
        local, size = layout.local, layout.size
        self._layout, self._size = layout, size
        free = local >= 0
        self.gradient = np.bincount(local[free], equations.gradient.numpy()[free], size)
        rows = np.broadcast_to(local[:, :, None], (*local.shape, local.shape[1]))
        columns = np.broadcast_to(local[:, None, :], rows.shape)
        lower = (rows >= columns) & (columns >= 0)
        self._rows, self._columns, values = rows[lower], columns[lower], equations.matrix.numpy()[lower]
        self._band = int((self._rows - self._columns).max(initial=0))
        self._kind = "dense" if size <= DENSE else "banded" if self._band <= BANDED * size else "sparse"
        if self._kind == "dense":
            self._matrix = np.bincount(self._rows * size + self._columns, values, size * size).reshape(size, size)
            self._diagonal = self._matrix.diagonal().copy()
        elif self._kind == "banded":
            place = (self._rows - self._columns) * size + self._columns
            self._matrix = np.bincount(place, values, (self._band + 1) * size).reshape(self._band + 1, size)
            self._diagonal = self._matrix[0].copy()
        else:
            off = self._rows != self._columns
            both = (np.concatenate([self._rows, self._columns[off]]), np.concatenate([self._columns, self._rows[off]]))
            self._sparse = csc_matrix((np.concatenate([values, values[off]]), both), shape=(size, size))
            self._diagonal = self._sparse.diagonal()

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
        return np.asarray(solved[:, 0] - along * (wanted[1] @ solved[:, 0]) / (wanted[1] @ along))

    def _solve(self, wanted: Array, damping: float) -> Array | None:
        diagonal = self._diagonal * (1.0 + damping) + TINY * max(float(self._diagonal.max()), 1e-300)
        try:
            if self._kind == "dense":
                matrix = self._matrix.copy()
                np.fill_diagonal(matrix, diagonal)
                return np.asarray(cho_solve(cho_factor(matrix, lower=True, check_finite=False), wanted, check_finite=False))
            if self._kind == "banded":
                matrix = self._matrix.copy()
                matrix[0] = diagonal
                factor = cholesky_banded(matrix, lower=True, check_finite=False)
                return np.asarray(cho_solve_banded((factor, True), wanted, check_finite=False))
            sparse = self._sparse.copy()
            sparse.setdiag(diagonal)
            return np.asarray(splu(sparse, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(wanted))
        except (LinAlgError, RuntimeError):  # not positive; or singular
            return None
