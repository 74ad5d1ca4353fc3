"""Where the refinement starts: the spanning tree chained by similarities, all on the chosen pixels (DUSt3R, section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.problem import Problem, State
from dust3r_ros.alignment.similarity_fit import fit_focal, fit_similarity
from dust3r_ros.alignment.spanning_tree import Branch
from dust3r_ros.geometry import Camera, GeometryError, Similarity, solve_pnp

Array = NDArray[np.float64]

ROUNDS = 4  # reweightings of each similarity
FOCAL_ROUNDS = 10
MIN_KNOWN = 12  # pixels; fewer hold nothing together
PLAUSIBLE_FOCAL = (0.2, 20.0)  # of the image's longer side


@dataclass(eq=False)
class Placed:
    """An image in the frame of its tree's root."""

    world: Array  # [3, S] its chosen pixels' points
    weight: Array  # [S] 0 where nothing is known
    rotation: Array  # [3, 3] camera to world
    position: Array  # [3]
    focal: float


class Sides:
    """A problem's sides, by prediction and image."""

    def __init__(self, problem: Problem, pairs: Sequence[tuple[int, int]]) -> None:
        self.problem, self.pairs = problem, pairs
        self.at = {image: n for n, image in enumerate(problem.images)}
        images = problem.image
        self._side = {(int(e), problem.images[images[m]]): m for m, e in enumerate(problem.pair)}
        self.first_in: dict[int, list[int]] = {}
        for e, (i, _) in enumerate(pairs):
            self.first_in.setdefault(i, []).append(e)

    def points(self, pair: int, image: int) -> tuple[Array, Array]:
        """[3, S] and weights [S]."""
        m = self._side[pair, image]
        return self.problem.points[m], self.problem.weight[m]

    def pixels(self, image: int) -> Array:
        return self.problem.pixels[self.at[image]]

    def empty(self) -> list[int]:
        """Pairs of which too little is known in either view to hold anything together."""
        known = (self.problem.weight > 0).sum(1)
        return [e for e, (i, j) in enumerate(self.pairs) if min(known[self._side[e, i]], known[self._side[e, j]]) < MIN_KNOWN]


def place_branch(
    branch: Branch, sides: Sides, scores: Sequence[float], focals: Mapping[int, float], there: Mapping[int, Placed] | None = None
) -> dict[int, Placed]:
    """Every image of a branch in the frame of its root, on the scale of the root's best pair. Known focal lengths stand.

    `there`: images that have a place already, the root among them.

    An image that shares too few known pixels with what is placed is left out, and so is what hangs on it.
    """
    placed = dict(there or {})
    own = sides.first_in.get(branch.root, [])
    if branch.root not in placed and own:
        root = _placed(branch.root, max(own, key=lambda e: scores[e]), np.eye(3), np.zeros(3), sides, focals)
        placed.update({} if root is None else {branch.root: root})
    for parent, new, pair in branch.links:
        if parent not in placed:
            continue
        points, weight = sides.points(pair, parent)
        to_world = _fit(points, placed[parent].world, np.minimum(weight, placed[parent].weight))
        if to_world is None:
            continue
        if sides.pairs[pair][0] == new:
            image = _placed(new, pair, to_world.scale * to_world.rotation, to_world.translation, sides, focals)
        else:
            image = _seen_by_another(new, pair, to_world, sides, scores, focals)
        if image is not None:
            placed[new] = image
    return placed


def start(problem: Problem, placed: Mapping[int, Placed]) -> State:
    """The tree's state, and every pair's similarity onto it."""
    images = [placed[image] for image in problem.images]
    rotation, position = np.stack([image.rotation for image in images]), np.stack([image.position for image in images])
    world = np.stack([image.world for image in images])
    known = np.stack([image.weight for image in images]) > 0
    depth = np.einsum("nis,ni->ns", world - position[..., None], rotation[:, :, 2])
    middle = float(np.median(depth[known])) if known.any() else 1.0
    depth = np.where(known & (depth > 0), depth, middle)
    pair_rotation, pair_translation, pair_scale = fit_pairs(problem, world, known)
    focal = np.array([image.focal for image in images])
    return State(rotation, position, focal, pair_rotation, pair_translation, pair_scale, depth)


def fit_pairs(problem: Problem, world: Array, known: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Every pair's similarity that carries its points onto world points [N, 3, S]."""
    image, count = problem.image, problem.pairs
    rotation, translation, scale = np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3)), np.ones(count)
    for e, both in enumerate(problem.sides_of_pair):
        source = np.concatenate([problem.points[m] for m in both], axis=1)
        target = np.concatenate([world[image[m]] for m in both], axis=1)
        weight = np.concatenate([problem.weight[m] * known[image[m]] for m in both])
        found = fit_similarity(source, target, weight, ROUNDS)
        if found[2] > 0:
            rotation[e], translation[e], scale[e] = found[0], found[1], found[2]
    return rotation, translation, scale


def _placed(node: int, pair: int, linear: Array, offset: Array, sides: Sides, focals: Mapping[int, float]) -> Placed | None:
    """The first image of a pair: the pair's frame is its camera's, so the similarity is its pose."""
    points, weight = sides.points(pair, node)
    if int((weight > 0).sum()) < MIN_KNOWN:
        return None
    focal = focals.get(node) or _focal(pair, node, sides)
    scale = float(np.cbrt(np.linalg.det(linear)))
    return Placed(linear @ points + offset[:, None], weight, linear / scale, offset, focal)


def _seen_by_another(
    node: int, pair: int, to_world: Similarity, sides: Sides, scores: Sequence[float], focals: Mapping[int, float]
) -> Placed | None:
    """The second image of a pair: its pose follows from a pair in which it is the first, or else from its points and pixels (PnP)."""
    points, weight = sides.points(pair, node)
    world = to_world.scale * to_world.rotation @ points + to_world.translation[:, None]
    for e in sorted(sides.first_in.get(node, []), key=lambda e: -scores[e]):
        front, front_weight = sides.points(e, node)
        similarity = _fit(front, world, np.minimum(front_weight, weight))
        if similarity is not None:
            return Placed(world, weight, similarity.rotation, similarity.translation, focals.get(node) or _focal(e, node, sides))
    known = weight > 0
    if int(known.sum()) < MIN_KNOWN:
        return None
    # Without a view of its own an unknown focal length is taken from the other camera of the pair.
    other = sides.pairs[pair][0]
    focal = focals.get(node) or focals.get(other) or _focal(pair, other, sides)
    pixels = sides.pixels(node)[:, known].T
    width = float(2 * np.abs(pixels).max() + 1)
    camera = Camera(round(width), round(width), focal, focal, 0.0, 0.0)
    found = solve_pnp(world[:, known].T.copy(), pixels.copy(), camera, threshold_px=0.01 * width)
    return None if found is None else Placed(world, weight, found.pose[:3, :3], found.pose[:3, 3], focal)


def _fit(source: Array, target: Array, weight: Array) -> Similarity | None:
    """None if too little is known."""
    if int((weight > 0).sum()) < MIN_KNOWN:
        return None
    rotation, translation, scale, _ = fit_similarity(source, target, weight, ROUNDS)
    return Similarity(scale, rotation, translation) if scale > 0 else None


def _focal(pair: int, node: int, sides: Sides) -> float:
    """What the pointmap of a pair's first image says, or else another of that image. Raises GeometryError if none is plausible."""
    pixels = sides.pixels(node)
    longer = 2.0 * float(np.abs(pixels).max()) + 1.0
    said = []
    for e in dict.fromkeys([pair, *sides.first_in.get(node, [])]):
        points, weight = sides.points(e, node)
        focal = float(fit_focal(points, weight, pixels, FOCAL_ROUNDS))
        if PLAUSIBLE_FOCAL[0] * longer < focal < PLAUSIBLE_FOCAL[1] * longer:
            return focal
        said.append(f"{focal:.0f}")
    raise GeometryError(f"focal length of image {node} comes out as {', '.join(said)} pixels: give it in `focals`")
