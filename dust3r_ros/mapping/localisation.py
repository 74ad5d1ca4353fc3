"""Where a picture was taken, in a saved map.

Wang et al., DUSt3R, CVPR 2024, section 4, "Visual localization": pairs of the picture with pictures of the map, 2D-3D matches, PnP with
RANSAC. Here the map's keyframes carry depth, which brings every pair to the map's scale; all of them together give one pose.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import Estimator, PairPrediction, Tokens
from dust3r_ros.geometry import Camera, solve_pnp, transform_points
from dust3r_ros.mapping.image_descriptor import image_descriptor
from dust3r_ros.mapping.likeness import likeness
from dust3r_ros.mapping.types import Keyframe, MapSnapshot

log = logging.getLogger(__name__)

CANDIDATES = 4  # keyframes that are tried at once
TRUSTED = 1.5  # a confidence from which a pixel counts as seen
MIN_KNOWN = 0.02  # share of a keyframe's pixels, and of the picture's, that a pair must know
SAME_DEPTH = 0.1  # of the depth: within it the pair and the map tell the same
MIN_SAME = 0.5  # share of a keyframe's pixels of which they must
MIN_INLIERS = 0.4  # share of the points that must agree with the pose, of all and of a keyframe that counts
PNP_THRESHOLD = 0.006  # of the picture's longer side, in pixels; at least 1
MIN_LIKENESS = 0.6  # correlation of a keyframe's picture with the placed one: rightly placed 0.77 and more, 0.8 m off 0.57, unrelated 0.06
MAX_POINTS = 2000  # of each keyframe, evenly over the picture

Describe = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class LocalisationError(Dust3rError):
    """A map or a choice of keyframes in which nothing can be looked for."""


@dataclass(frozen=True, eq=False)
class Localisation:
    """Where a picture was taken, or why that is not known."""

    pose: NDArray[np.float64] | None  # [4, 4] camera to the map's world, in map units; None: not found
    inliers: float  # share of the points that agree with the pose, 0..1
    likeness: float  # correlation, -1..1, of the picture with the most alike keyframe seen from the pose
    keyframes: tuple[int, ...]  # indices of those that agree with it; empty if it was not found
    tried: tuple[int, ...]  # all that were compared with the picture, the most alike first
    reason: str  # one short sentence: by what it was found, or why not


@dataclass(frozen=True, eq=False)
class _Sight:
    """What one keyframe says: points of the map and the pixels of the picture that show them."""

    keyframe: Keyframe
    points: NDArray[np.float64]  # [N, 3] world
    pixels: NDArray[np.float64]  # [N, 2] of the picture's working image


def localise(
    snapshot: MapSnapshot,
    estimator: Estimator,
    image: NDArray[np.uint8],
    camera: Camera,
    candidates: int | Sequence[int] = CANDIDATES,
    describe: Describe = image_descriptor,
) -> Localisation:
    """The pose of `camera` that took `image` [H, W, 3] uint8 RGB, in a map.

    `candidates`: how many keyframes to try, the most alike by `describe` (unit vectors, compared by dot product), first among those still
    in the map's window, then, if they do not place it, among those remembered by a small picture; or the indices of those to try. A pair
    counts whose depth of the keyframe is that of the map but for one scale (median ratio); the pose is PnP's over the points of all of
    them. It is believed if at least 40 % of the points agree and if a keyframe seen from there looks like the picture (`likeness`): an
    estimator's points agree with each other wherever it puts them. Raises LocalisationError for a map without keyframes, an unknown index
    or fewer than one candidate. The estimator's own errors pass through.
    """
    query = estimator.encode(image, camera)
    tried: tuple[int, ...] = ()
    reasons = []
    for keyframes in _rounds(snapshot, image, candidates, describe):
        tried += tuple(keyframe.index for keyframe in keyframes)
        found = _among(keyframes, estimator, query)
        small = "" if any(k.index in snapshot.window for k in keyframes) else _small(keyframes)
        if found.pose is not None:
            return replace(found, tried=tried, reason=found.reason + small)
        reasons.append(found.reason + small)
    return Localisation(None, 0.0, 0.0, (), tried, "; ".join(reasons))


def _rounds(
    snapshot: MapSnapshot, image: NDArray[np.uint8], candidates: int | Sequence[int], describe: Describe
) -> list[tuple[Keyframe, ...]]:
    """Which keyframes to try together, round by round."""
    if not snapshot.keyframes:
        raise LocalisationError("localisation in a map without keyframes: save the map after its second keyframe")
    known = {keyframe.index: keyframe for keyframe in snapshot.keyframes}
    if not isinstance(candidates, int):
        missing = [index for index in candidates if index not in known]
        if missing or not candidates:
            raise LocalisationError(f"localisation among keyframes {list(candidates)}: the map has {sorted(known)}")
        return [tuple(known[index] for index in candidates)]
    if candidates < 1:
        raise LocalisationError(f"localisation with {candidates} candidates: give at least 1")
    wanted = describe(image)
    alike = {index: float(describe(keyframe.image) @ wanted) for index, keyframe in known.items()}
    ranked = sorted(known, key=lambda index: -alike[index])
    log.debug("pictures most alike: %s", ", ".join(f"{index} ({alike[index]:.2f})" for index in ranked[:candidates]))
    whole = [index for index in ranked if index in snapshot.window]
    rest = [index for index in ranked if index not in snapshot.window]
    return [tuple(known[index] for index in group[:candidates]) for group in (whole, rest) if group]


def _among(keyframes: Sequence[Keyframe], estimator: Estimator, query: Tokens) -> Localisation:
    """Place the picture by some keyframes, all at once."""
    views: dict[int, Tokens] = {}
    for keyframe in sorted(keyframes, key=lambda k: k.index):
        views[keyframe.index] = estimator.encode(keyframe.image, keyframe.camera)
    own = max(views) + 1
    pairs = [(index, own) for index in views]
    wanted = set(pairs)
    estimated = {(p.i, p.j): p for p in estimator.estimate({**views, own: query}, pairs) if (p.i, p.j) in wanted}
    sights = [_sight(k, views[k.index], estimated[k.index, own]) for k in keyframes if (k.index, own) in estimated]
    seen = [sight for sight in sights if sight is not None]
    if not seen:
        return _nowhere(f"none of {len(keyframes)} keyframes shows what the picture shows")
    size = max(query.camera.width, query.camera.height)
    points, pixels = np.concatenate([s.points for s in seen]), np.concatenate([s.pixels for s in seen])
    found = solve_pnp(points, pixels, query.camera, max(1.0, PNP_THRESHOLD * size))
    if found is None:
        return _nowhere(f"no pose agrees with the points of {len(seen)} keyframes")
    share = float(found.inliers.mean())
    parts = np.split(found.inliers, np.cumsum([len(s.points) for s in seen])[:-1])
    agree = tuple(s.keyframe for s, part in zip(seen, parts, strict=True) if part.mean() >= MIN_INLIERS)
    if share < MIN_INLIERS or not agree:
        return _nowhere(f"only {share:.0%} of the points of {len(seen)} keyframes agree with one pose: {MIN_INLIERS:.0%} are needed", share)
    alike = {k.index: likeness(k, _trusted(k) > 0, query.image, query.camera, found.pose) for k in agree}
    best = max((value for value in alike.values() if value is not None), default=0.0)
    look = tuple(index for index, value in alike.items() if value is not None and value >= MIN_LIKENESS)
    if not look:
        return _nowhere(
            f"the map does not look like the picture from the pose found (correlation {best:.2f} of {MIN_LIKENESS})", share, best
        )
    return Localisation(found.pose, share, best, look, (), f"placed by {len(look)} of {len(keyframes)} keyframes")


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
    return _Sight(keyframe, points, np.stack([columns, rows], axis=-1).astype(np.float64))


def _depth_of(keyframe: Keyframe, camera: Camera) -> NDArray[np.float32]:
    """The keyframe's depth, where it is trusted, on the pixels of the camera that the estimator works with: the nearest value, else 0."""
    trusted = _trusted(keyframe)
    pixels = keyframe.camera.project(camera.unproject(camera.pixel_grid()))
    inside = keyframe.camera.contains(pixels)
    columns, rows = np.moveaxis(np.rint(np.where(inside[..., None], pixels, 0.0)).astype(np.int64), -1, 0)
    columns, rows = columns.clip(0, keyframe.camera.width - 1), rows.clip(0, keyframe.camera.height - 1)
    return np.where(inside, trusted[rows, columns], np.float32(0))


def _trusted(keyframe: Keyframe) -> NDArray[np.float32]:
    return np.where(keyframe.confidence >= TRUSTED, keyframe.depth, np.float32(0))


def _small(keyframes: Sequence[Keyframe]) -> str:
    side = max(max(k.camera.width, k.camera.height) for k in keyframes)
    return f" (pictures of {side} pixels only: they have left the map's window)"


def _nowhere(reason: str, inliers: float = 0.0, alike: float = 0.0) -> Localisation:
    return Localisation(None, inliers, alike, (), (), reason)
