"""A picture placed by keyframes of a map, whose tokens are at hand: pairs on the map's scale, one pose by PnP, and what speaks for it.

Wang et al., DUSt3R, CVPR 2024, section 4, "Visual localization": 2D-3D matches from pairs of the picture with pictures of the map, PnP with
RANSAC. Here the map's keyframes carry depth, which brings every pair to the map's scale; all of them together give one pose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.similarity_fit import fit_similarity
from dust3r_ros.estimators import Estimator, PairPrediction, Tokens
from dust3r_ros.geometry import Camera, inverse_pose, rotation_angle, solve_pnp, transform_points
from dust3r_ros.mapping.places.likeness import likeness
from dust3r_ros.mapping.places.picture_depth import depth_by_pairs
from dust3r_ros.mapping.types import Keyframe

TRUSTED = 1.5  # a confidence from which a pixel counts as seen
MIN_KNOWN = 0.02  # share of a keyframe's pixels, and of the picture's, that a pair must know
SAME_DEPTH = 0.1  # of the depth: within it the pair and the map tell the same
MIN_SAME = 0.5  # share of a keyframe's pixels of which they must
MIN_INLIERS = 0.4  # share of the points that must agree with the pose, of all and of a keyframe that counts
PNP_THRESHOLD = 0.006  # of the picture's longer side, in pixels; at least 1
MIN_LIKENESS = 0.6  # correlation of a keyframe's picture with the placed one: rightly placed 0.77 and more, 0.8 m off 0.57, unrelated 0.06
MAX_POINTS = 2000  # of each keyframe, evenly over the picture
SAME_TURN, SAME_PLACE = 0.15, 0.15  # rad, share of the depth: within them two poses are the same
ROUNDS = 5  # of the robust fit of the way back


@dataclass(frozen=True, eq=False)
class Localisation:
    """Where a picture was taken, or why that is not known."""

    pose: NDArray[np.float64] | None  # [4, 4] camera to the map's world, in map units; None: not found
    inliers: float  # share of the points that agree with the pose, 0..1
    likeness: float  # correlation, -1..1, of the picture with the most alike keyframe seen from the pose
    keyframes: tuple[int, ...]  # indices of those that agree with it; empty if it was not found
    tried: tuple[int, ...]  # all that were compared with the picture, the most alike first
    reason: str  # one short sentence: by what it was found, or why not
    depth: NDArray[np.float32] | None = None  # [h, w] of the picture's working image, map units, 0 unknown; None: not found
    confidence: NDArray[np.float32] | None = None  # [h, w] >= 1, of the depth


@dataclass(frozen=True, eq=False)
class _Sight:
    """What one keyframe says: points of the map and the pixels of the picture that show them."""

    keyframe: Keyframe
    points: NDArray[np.float64]  # [N, 3] world
    pixels: NDArray[np.float64]  # [N, 2] of the picture's working image
    scale: float  # of the pair: map units for one of its own


def place_picture(
    keyframes: Sequence[Keyframe], views: Mapping[int, Tokens], estimator: Estimator, query: Tokens, both_ways: bool = False
) -> Localisation:
    """The pose of the picture `query` by some keyframes, all at once. `views`: their tokens, by index.

    A pair counts whose depth of the keyframe is that of the map but for one scale (median ratio); the pose is PnP's over the points of all
    of them. It is believed if at least 40 % of the points agree and if a keyframe seen from there looks like the picture (`likeness`). With
    `both_ways` the keyframes that agree are estimated the other way round too, and only those stay whose way back is the same.
    """
    own = max(views) + 1
    by_index = {keyframe.index: keyframe for keyframe in keyframes}
    forth = _estimated(estimator, {**{n: views[n] for n in sorted(by_index)}, own: query}, [(index, own) for index in sorted(by_index)])
    sights = [_sight(k, views[k.index], forth[k.index, own]) for k in keyframes if (k.index, own) in forth]
    seen = [sight for sight in sights if sight is not None]
    if not seen:
        return nowhere(f"none of {len(keyframes)} keyframes shows what the picture shows")
    size = max(query.camera.width, query.camera.height)
    points, pixels = np.concatenate([s.points for s in seen]), np.concatenate([s.pixels for s in seen])
    found = solve_pnp(points, pixels, query.camera, max(1.0, PNP_THRESHOLD * size))
    if found is None:
        return nowhere(f"no pose agrees with the points of {len(seen)} keyframes")
    share = float(found.inliers.mean())
    parts = np.split(found.inliers, np.cumsum([len(s.points) for s in seen])[:-1])
    agree = tuple(s.keyframe for s, part in zip(seen, parts, strict=True) if part.mean() >= MIN_INLIERS)
    if share < MIN_INLIERS or not agree:
        return nowhere(f"only {share:.0%} of the points of {len(seen)} keyframes agree with one pose: {MIN_INLIERS:.0%} are needed", share)
    alike = {k.index: likeness(k, trusted_depth(k) > 0, query.image, query.camera, found.pose) for k in agree}
    best = max((value for value in alike.values() if value is not None), default=0.0)
    look = tuple(index for index, value in alike.items() if value is not None and value >= MIN_LIKENESS)
    if not look:
        return nowhere(
            f"the map does not look like the picture from the pose found (correlation {best:.2f} of {MIN_LIKENESS})", share, best
        )
    if both_ways:
        back = _estimated(estimator, {**{n: views[n] for n in sorted(look)}, own: query}, [(own, index) for index in sorted(look)])
        look = tuple(n for n in look if (own, n) in back and _same_way_back(by_index[n], views[n], back[own, n], found.pose))
        if not look:
            return nowhere("the way back from the picture to the map's keyframes is another one than the way there", share, best)
    told = [(s.keyframe.pose, s.scale, forth[s.keyframe.index, own]) for s in seen if s.keyframe.index in look]
    depth, confidence = depth_by_pairs(found.pose, told)
    return Localisation(found.pose, share, best, look, (), f"placed by {len(look)} of {len(keyframes)} keyframes", depth, confidence)


def nowhere(reason: str, inliers: float = 0.0, alike: float = 0.0) -> Localisation:
    return Localisation(None, inliers, alike, (), (), reason)


def same_pose(one: NDArray[np.float64], other: NDArray[np.float64], depth: float) -> bool:
    """Whether two poses (4x4) are the same but for what estimates differ by; `depth`: how far away things are."""
    moved = inverse_pose(one) @ other
    return bool(rotation_angle(moved[:3, :3]) < SAME_TURN and np.linalg.norm(moved[:3, 3]) < SAME_PLACE * depth)


def trusted_depth(keyframe: Keyframe) -> NDArray[np.float32]:
    """[h, w]: 0 where it is not trusted."""
    return np.where(keyframe.confidence >= TRUSTED, keyframe.depth, np.float32(0))


def _estimated(
    estimator: Estimator, views: Mapping[int, Tokens], pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], PairPrediction]:
    wanted = set(pairs)
    return {(p.i, p.j): p for p in estimator.estimate(views, pairs) if (p.i, p.j) in wanted}


def _sight(keyframe: Keyframe, view: Tokens, prediction: PairPrediction) -> _Sight | None:
    """The pair (keyframe, picture) on the map's scale; None if it knows too little or tells of another place than the map does."""
    own, sure = prediction.points_i.cpu().numpy(), prediction.confidence_i.cpu().numpy()
    depth = _depth_of(keyframe, view.camera)
    both = (depth > 0) & (sure >= TRUSTED) & (own[..., 2] > 0)
    if both.mean() < MIN_KNOWN:
        return None
    ratio = depth[both] / own[both][:, 2].astype(np.float64)
    scale = float(np.median(ratio))
    if np.mean(np.abs(ratio / scale - 1.0) <= SAME_DEPTH) < MIN_SAME:
        return None
    other = prediction.points_j.cpu().numpy()
    known = (prediction.confidence_j.cpu().numpy() >= TRUSTED) & np.isfinite(other).all(-1)
    if known.mean() < MIN_KNOWN:
        return None
    rows, columns = np.nonzero(known)
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS)).astype(np.int64)
    rows, columns = rows[chosen], columns[chosen]
    points = transform_points(keyframe.pose, scale * other[rows, columns].astype(np.float64))
    return _Sight(keyframe, points, np.stack([columns, rows], axis=-1).astype(np.float64), scale)


def _same_way_back(keyframe: Keyframe, view: Tokens, prediction: PairPrediction, pose: NDArray[np.float64]) -> bool:
    """Whether the pair (picture, keyframe) puts the picture where the pairs the other way round have put it."""
    points, sure = prediction.points_j.cpu().numpy(), prediction.confidence_j.cpu().numpy()
    depth = _depth_of(keyframe, view.camera)
    known = (depth > 0) & (sure >= TRUSTED) & np.isfinite(points).all(-1)
    if known.mean() < MIN_KNOWN:
        return False
    rows, columns = np.nonzero(known)
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS)).astype(np.int64)
    rows, columns = rows[chosen], columns[chosen]
    own = view.camera.rays()[rows, columns] * depth[rows, columns, None].astype(np.float64)
    seen = points[rows, columns].astype(np.float64)
    weight = np.full(len(own), 1.0 / len(own))
    rotation, translation, scale, off = fit_similarity(np.ascontiguousarray(seen.T), np.ascontiguousarray(own.T), weight, ROUNDS)
    typical = float(np.median(depth[rows, columns]))
    if not scale > 0 or off > SAME_PLACE * typical:
        return False
    back = np.eye(4)
    back[:3, :3], back[:3, 3] = rotation, translation
    return same_pose(keyframe.pose @ back, pose, typical)


def _depth_of(keyframe: Keyframe, camera: Camera) -> NDArray[np.float32]:
    """The keyframe's depth, where it is trusted, on the pixels of the camera that the estimator works with: the nearest value, else 0."""
    trusted = trusted_depth(keyframe)
    pixels = keyframe.camera.project(camera.unproject(camera.pixel_grid()))
    inside = keyframe.camera.contains(pixels)
    columns, rows = np.moveaxis(np.rint(np.where(inside[..., None], pixels, 0.0)).astype(np.int64), -1, 0)
    columns, rows = columns.clip(0, keyframe.camera.width - 1), rows.clip(0, keyframe.camera.height - 1)
    return np.where(inside, trusted[rows, columns], np.float32(0))
