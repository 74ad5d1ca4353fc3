"""Where a picture was taken, in a saved map.

Retrieval of the keyframes that look most like it; `placing` does the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.places.image_descriptor import image_descriptor
from dust3r_ros.mapping.places.placing import Localisation, place_picture
from dust3r_ros.mapping.types import Keyframe, MapSnapshot

log = logging.getLogger(__name__)

CANDIDATES = 4  # keyframes that are tried at once

Describe = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class LocalisationError(Dust3rError):
    """A map or a choice of keyframes in which nothing can be looked for."""


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
    ordered = sorted(keyframes, key=lambda k: k.index)
    return place_picture(keyframes, {k.index: estimator.encode(k.image, k.camera) for k in ordered}, estimator, query)


def _small(keyframes: Sequence[Keyframe]) -> str:
    side = max(max(k.camera.width, k.camera.height) for k in keyframes)
    return f" (pictures of {side} pixels only: they have left the map's window)"
