"""Which pairs contradict the others: before anything is solved by turning round triangles, afterwards by how far off their points lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dust3r_ros.alignment.problem import Array, Problem, State
from dust3r_ros.alignment.similarity_fit import fit_similarity
from dust3r_ros.alignment.start import MIN_KNOWN, Sides

ROUNDS = 3
CLOSED = np.radians(10.0)  # what turning round a triangle of pairs may leave
MOST_TRIANGLES = 20  # of one pair
DOUBTFUL_SHAPE = 0.1  # relative: an image's shape in one pair and in another
LEAST_TRUST = 0.02
FAR_OFF = 0.12  # of the depth: a pair whose points lie further off than this and than
WORSE = 3.0  # times as far as the typical pair's is bad
WORST = 0.5  # of the worst: right pairs look better once the worst are gone


def trust(sides: Sides, scores: Sequence[float]) -> Array:
    """[E] in 0..1: how far each pair agrees with its reverse and with those that make triangles with it; 1 where nothing tells."""
    turns, shape = _turns(sides, scores)
    best: dict[tuple[int, int], int] = {}
    for e, (i, j) in enumerate(sides.pairs):
        if turns[e] is not None and ((i, j) not in best or scores[e] > scores[best[i, j]]):
            best[i, j] = e

    def turn(i: int, j: int) -> Array | None:
        """Camera j to camera i by the surest pair of either order."""
        forth, back = best.get((i, j)), best.get((j, i))
        if forth is not None and (back is None or scores[forth] >= scores[back]):
            return turns[forth]
        return None if back is None else turns[back].T  # type: ignore[union-attr]

    partners: dict[int, set[int]] = {}
    for i, j in best:
        partners.setdefault(i, set()).add(j)
        partners.setdefault(j, set()).add(i)
    owner: list[int] = []
    loops: list[tuple[Array | None, ...]] = []
    for e, (i, j) in enumerate(sides.pairs):
        if turns[e] is None:
            continue
        if (j, i) in best:
            owner.append(e)
            loops.append((turns[e], turns[best[j, i]], np.eye(3)))
        for k in sorted(partners[i] & partners[j], key=lambda k: abs(k - i) + abs(k - j))[:MOST_TRIANGLES]:
            owner.append(e)
            loops.append((turns[e], turn(j, k), turn(k, i)))
    found = 1.0 / (1.0 + (shape / DOUBTFUL_SHAPE) ** 2)
    if owner:
        a, b, c = (np.stack(part) for part in zip(*loops, strict=True))
        angle = np.arccos(np.clip((np.einsum("nij,njk,nki->n", a, b, c) - 1.0) / 2.0, -1.0, 1.0))
        votes = np.bincount(owner, minlength=len(found))
        closed = np.bincount(owner, weights=angle < CLOSED, minlength=len(found))
        found = np.where(votes > 0, found * closed / np.maximum(votes, 1), found)
    return np.maximum(found, LEAST_TRUST)


def _turns(sides: Sides, scores: Sequence[float]) -> tuple[list[Array | None], Array]:
    """Of each pair the rotation from its second camera to its first, and how differently it and another pair see the second image."""
    front = {image: max(own, key=lambda e: scores[e]) for image, own in sides.first_in.items()}
    turns: list[Array | None] = []
    shape = np.zeros(len(sides.pairs))
    for e, (_, j) in enumerate(sides.pairs):
        turns.append(None)
        if j not in front:
            continue
        points, weight = sides.points(e, j)
        own, own_weight = sides.points(front[j], j)
        both = np.minimum(weight, own_weight)
        if int((both > 0).sum()) < MIN_KNOWN:
            continue
        rotation, _, scale, distance = fit_similarity(own, points, both, ROUNDS)
        if scale > 0:
            turns[e] = rotation
            shape[e] = distance / max(float(np.median(np.linalg.norm(points[:, both > 0], axis=0))), 1e-12)
    return turns, shape


def bad_pairs(problem: Problem, state: State) -> dict[int, str]:
    """Position of each pair of `problem` that lies farthest from where the others put its images, and the reason in words.

    Empty when none is bad: to be asked again after what was named has gone.
    """
    off = pair_residuals(problem, state)
    known = np.isfinite(off)
    if known.sum() < 3:
        return {}
    typical = float(np.median(off[known]))
    limit = max(FAR_OFF, WORSE * typical, WORST * float(np.max(off[known])))
    return {
        int(e): f"its points lie {off[e]:.2f} of the depth from where the other pairs put them (typical: {typical:.3f})"
        for e in np.nonzero(known & (off > limit))[0]
    }


def pair_residuals(problem: Problem, state: State) -> Array:
    """[E]: mean distance of a pair's points from the scene, in units of their depth; NaN where nothing is known."""
    image = problem.image
    linear, offset = state.linear[problem.pair], state.pair_translation[problem.pair]
    target = linear @ problem.points + offset[..., None]
    rays = problem.pixels / state.focal[:, None, None]
    rays = np.concatenate([rays, np.ones_like(rays[:, :1])], axis=1)
    world = state.rotation @ (rays * state.depth[:, None]) + state.position[..., None]
    distance = np.linalg.norm(target - world[image], axis=1)
    depth = np.maximum(np.abs(state.depth), 1e-12)[image]
    weight = problem.weight
    total = np.bincount(problem.pair, weights=weight.sum(1), minlength=problem.pairs)
    off = np.bincount(problem.pair, weights=(weight * np.minimum(distance / depth, 10.0)).sum(1), minlength=problem.pairs)
    return np.where(total > 0, off / np.maximum(total, 1e-300), np.nan)
