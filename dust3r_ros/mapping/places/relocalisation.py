"""Where a lost camera is: by what it sees, among all keyframes of the running map.

Retrieval names the places that look alike, `placing` verifies them by geometry and by looks, both ways. Where several places verify, what
is seen does not tell them apart: nothing is believed, and the next pictures may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.mapping.places.places import Place, distinct_places
from dust3r_ros.mapping.places.placing import Localisation, nowhere, place_picture, same_pose
from dust3r_ros.mapping.types import Keyframe, Standpoint

MIN_ALIKE = 0.5  # cosine of the descriptors below which a place is not tried
MIN_VOTES = 0.6  # share of a place's keyframes, of those that were compared, that must agree


@dataclass(frozen=True, eq=False)
class Relocalisation:
    """A place in the map, or why there is none."""

    where: Localisation
    views: Mapping[int, Tokens]  # of the keyframes that agree
    ambiguous: bool = False  # several places look and verify alike


def relocalise(
    query: Tokens,
    ranked: Sequence[tuple[int, float]],
    keyframes: Mapping[int, Keyframe],
    standpoints: Mapping[int, Standpoint],
    tokens: Callable[[int], Tokens],
    estimator: Estimator,
    here: Sequence[int] = (),
) -> Relocalisation:
    """The pose of a picture in the map. `ranked`: (keyframe, how alike), the most alike first; `tokens`: those of a keyframe.

    `here`: keyframes where the camera was a moment ago. If they verify, it is still there, whatever else looks the same.
    """
    if here:
        near = {index: tokens(index) for index in here}
        where = place_picture([keyframes[index] for index in here], near, estimator, query, both_ways=True)
        if where.pose is not None:
            return Relocalisation(replace(where, tried=tuple(here)), {index: near[index] for index in where.keyframes})
    places = [place for place in distinct_places(ranked, standpoints) if place.alike >= MIN_ALIKE]
    if not places:
        return Relocalisation(nowhere("no keyframe looks like it"), {})
    views: dict[int, Tokens] = {}
    best, failed = None, ""
    for place in places:
        views.update({index: tokens(index) for index in place.keyframes})
        where = _at(place, views, keyframes, estimator, query)
        if where.pose is not None:
            best = where
            break
        failed = failed or where.reason
    if best is None or best.pose is None:
        return Relocalisation(nowhere(failed), {})
    depth = standpoints[best.keyframes[0]].depth
    others = [place.keyframes[0] for place in places if place.keyframes[0] not in best.tried]
    other = rival(best.pose, depth, others, keyframes.__getitem__, lambda n: views[n] if n in views else tokens(n), estimator, query)
    if other is not None:
        return Relocalisation(nowhere(undecided(best, other)), {}, ambiguous=True)
    return Relocalisation(best, {index: views[index] for index in best.keyframes})


def rival(
    pose: NDArray[np.float64],
    depth: float,
    others: Sequence[int],
    keyframe: Callable[[int], Keyframe],
    tokens: Callable[[int], Tokens],
    estimator: Estimator,
    query: Tokens,
) -> int | None:
    """The first of `others`, keyframes of other places, that verifies too and says another pose than `pose`. `depth`: how far things are.

    One keyframe is enough to doubt, where it takes most of a place's to believe.
    """
    for index in others:
        other = place_picture([keyframe(index)], {index: tokens(index)}, estimator, query, both_ways=True)
        if other.pose is not None and not same_pose(pose, other.pose, depth):
            return index
    return None


def undecided(best: Localisation, other: int) -> str:
    return f"it could be at keyframes {best.keyframes[0]} and {other} alike: waits for more to be seen"


def _at(place: Place, views: Mapping[int, Tokens], keyframes: Mapping[int, Keyframe], estimator: Estimator, query: Tokens) -> Localisation:
    where = place_picture([keyframes[index] for index in place.keyframes], views, estimator, query, both_ways=True)
    if where.pose is not None and len(where.keyframes) < MIN_VOTES * len(place.keyframes):
        return nowhere(f"only {len(where.keyframes)} of {len(place.keyframes)} keyframes that look alike agree", where.inliers)
    return replace(where, tried=place.keyframes)
