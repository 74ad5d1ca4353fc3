"""What a pair says about two keyframes whose depths are settled, in 7 + 28 numbers: the compressed factor of the pose graph.

A keyframe whose depths no longer change can only move as a whole: a similarity, 7 unknowns. A pair sees both keyframes in one frame. With
E_i the similarity that carries the pair's points onto keyframe i's own, and A_i its information (7x7, from the same residuals and weights
as the alignment's), E_i E_j^-1 is where keyframe j stands in i, and its covariance is the sum of the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.pair_motions import SaidMotion
from dust3r_ros.alignment.sim3 import Sim3, crosses
from dust3r_ros.alignment.similarity_fit import fit_similarity
from dust3r_ros.geometry import Similarity

Array = NDArray[np.float64]

ROUNDS = 5
PATCHES = 16  # independent errors in one view of one pair: neighbouring pixels err together
MIN_KNOWN = 12
SHARPEST = 1e-4  # relative: residuals are not smaller than this
SYSTEMATIC = 0.01  # rad, share of the depth, log: what a pair may be wrong by as a whole, whatever its residuals say


@dataclass(frozen=True, eq=False)
class Link:
    """Keyframe `j` as seen from keyframe `i`, each in its own camera's frame and depth units."""

    i: int
    j: int
    relative: Similarity  # j's frame to i's
    information: Array  # [7, 7] of the increment on the right of `relative`: rotation, translation, log scale
    loop: bool = False  # between keyframes that are far apart in time: may be wrong, and is weighed robustly
    depth: float = 1.0  # typical of keyframe j, in its own units


@dataclass(frozen=True, eq=False)
class Side:
    """One keyframe of a pair at some pixels."""

    own: Array  # [3, S] settled points in the keyframe's own camera frame
    seen: Array  # [3, S] the same as the pair has them, in the pair's frame
    weight: Array  # [S] log confidence, 0 where either is unknown


def make_link(i: int, j: int, side_i: Side, side_j: Side, loop: bool = False, motion: SaidMotion | None = None) -> Link | None:
    """None where too little is known of either. `motion`: of j's camera in i's, as the pair itself says, in the pair's unit.

    A loop has none: what its two directions say of the cameras comes of the same matches, and would agree where both are wrong.
    """
    to_i, to_j = _carried(side_i), _carried(side_j)
    if to_i is None or to_j is None:
        return None
    both = Sim3.stack([to_i[0], to_j[0]])
    relative = (both[:1] @ both[1:].inverse()).one(0)
    covariance = to_i[1] + to_j[1]  # in the pair's frame
    into_j = both[1:].adjoint()[0]
    size = float(np.median(np.linalg.norm(side_j.own[:, side_j.weight > 0], axis=0)))
    floor = np.diag([SYSTEMATIC**2] * 3 + [(SYSTEMATIC * size) ** 2] * 3 + [SYSTEMATIC**2])
    link = Link(i, j, relative, _inverse(into_j @ covariance @ into_j.T + floor), loop, size)
    return link if motion is None else merged(link, _moved(link, motion, *to_i))


def _moved(link: Link, said: SaidMotion, to_i: Similarity, covariance: Array) -> Link:
    """What the motion says alone: nothing of the two keyframes' scales. Its length is no surer than the pair's unit is in keyframe i's."""
    motion, unit, open_by = said.motion, to_i.scale, float(covariance[6, 6]) + SYSTEMATIC**2
    relative = Similarity(link.relative.scale, motion.rotation, unit * motion.translation)
    way = motion.rotation.T @ motion.translation  # seen from j
    moved = (unit / relative.scale) ** 2 * (motion.sigma_move**2 * np.eye(3) + open_by * np.outer(way, way))
    information = np.zeros((7, 7))
    information[:3, :3], information[3:6, 3:6] = np.eye(3) / motion.sigma_turn**2, np.linalg.inv(moved)
    return replace(link, relative=relative, information=said.share * information)


def _carried(side: Side) -> tuple[Similarity, Array] | None:
    """The similarity from the pair's points to the keyframe's own, and its covariance [7, 7] as an increment on the right."""
    known = side.weight > 0
    if int(known.sum()) < MIN_KNOWN:
        return None
    own, seen, weight = side.own[:, known], side.seen[:, known], side.weight[known] / side.weight[known].sum()
    rotation, translation, scale, off = fit_similarity(np.ascontiguousarray(seen), np.ascontiguousarray(own), weight, ROUNDS)
    if not scale > 0:
        return None
    residual = scale * rotation @ seen + translation[:, None] - own
    size = float(np.median(np.linalg.norm(own, axis=0)))
    typical = max(off, SHARPEST * size)
    rho = np.sqrt((residual**2).sum(0) + 0.25 * typical**2)
    jacobian = np.zeros((seen.shape[1], 3, 7))
    jacobian[:, :, :3] = -crosses(seen.T)
    jacobian[:, :, 3:6] = np.eye(3)
    jacobian[:, :, 6] = seen.T
    jacobian *= scale
    # Laplace distributed errors of mean `typical`, PATCHES of them.
    say = PATCHES * weight / (rho * typical)
    return Similarity(scale, rotation, translation), _inverse(np.einsum("s,sca,scb->ab", say, jacobian, jacobian))


def _inverse(matrix: Array) -> Array:
    """Of a symmetric matrix that may be nearly singular: what is not known stays within bounds."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    values = np.maximum(values, 1e-12 * max(float(values.max()), 1e-300))
    return np.asarray((vectors / values) @ vectors.T)


def merged(first: Link, second: Link) -> Link:
    """Two links of the same keyframes in one."""
    total = first.information + second.information
    one, two = Sim3.stack([first.relative]), Sim3.stack([second.relative])
    step = np.linalg.solve(total, second.information @ (one.inverse() @ two).difference()[0])
    return Link(first.i, first.j, one.moved(step[None]).one(0), total, first.loop, first.depth)
