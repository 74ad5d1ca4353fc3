"""Where in a map the camera may be: its keyframes by their looks, or those about a place; and the picture placed by them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.mapping.places.image_descriptor import image_descriptor
from dust3r_ros.mapping.places.placing import Localisation, nowhere, place_picture
from dust3r_ros.mapping.types import Keyframe, MapSnapshot

CANDIDATES = 4  # keyframes that are tried at once
AROUND = 12  # the nearest keyframes, of which those that look most alike are tried
SAME_VIEW = np.cos(np.radians(60.0))  # between the optical axes of keyframes that may show the same
KEPT = 24  # keyframes whose tokens are kept


class PlaceFinder:
    """A map's keyframes with their descriptors, worked out once. The map does not change but in size."""

    def __init__(self, snapshot: MapSnapshot, estimator: Estimator) -> None:
        self._estimator = estimator
        self._keyframes: Sequence[Keyframe] = snapshot.keyframes
        self._descriptors = np.stack([image_descriptor(keyframe.image) for keyframe in snapshot.keyframes])
        self._places = np.stack([keyframe.pose[:3, 3] for keyframe in snapshot.keyframes])
        self._axes = np.stack([keyframe.pose[:3, 2] for keyframe in snapshot.keyframes])
        self._tokens: OrderedDict[int, Tokens] = OrderedDict()

    def alike(self, image: NDArray[np.uint8], attempt: int = 0) -> list[Keyframe]:
        """Those of the whole map that look most like the picture [H, W, 3]; with every `attempt` the next ones, then the first again."""
        ranked = np.argsort(-(self._descriptors @ image_descriptor(image)), kind="stable")
        rounds = -(-min(len(ranked), 3 * CANDIDATES) // CANDIDATES)
        first = attempt % rounds * CANDIDATES
        return [self._keyframes[n] for n in ranked[first : first + CANDIDATES]]

    def near(self, image: NDArray[np.uint8], pose: NDArray[np.float64]) -> list[Keyframe]:
        """Of the keyframes nearest to `pose` (camera to world, 4x4) that look the same way, those most like the picture."""
        distance = np.linalg.norm(self._places - pose[:3, 3], axis=1)
        distance[self._axes @ pose[:3, 2] < SAME_VIEW] = np.inf
        around = np.argsort(distance, kind="stable")[:AROUND]
        around = around[np.isfinite(distance[around])]
        ranked = around[np.argsort(-(self._descriptors[around] @ image_descriptor(image)), kind="stable")]
        return [self._keyframes[n] for n in ranked[:CANDIDATES]]

    def grow(self, keyframes: Sequence[Keyframe], factor: float) -> None:
        """The map has become larger about its origin; `keyframes`: as they are now."""
        self._keyframes, self._places = keyframes, self._places * factor

    def place(self, query: Tokens, candidates: list[Keyframe]) -> Localisation:
        """The picture's place by these keyframes."""
        if not candidates:
            return nowhere("no keyframe of the map is near and looks the same way")
        return place_picture(candidates, {keyframe.index: self._encoded(keyframe) for keyframe in candidates}, self._estimator, query)

    def _encoded(self, keyframe: Keyframe) -> Tokens:
        tokens = self._tokens.pop(keyframe.index, None)
        if tokens is None:
            tokens = self._estimator.encode(keyframe.image, keyframe.camera)
            while len(self._tokens) >= KEPT:
                self._tokens.popitem(last=False)
        self._tokens[keyframe.index] = tokens
        return tokens
