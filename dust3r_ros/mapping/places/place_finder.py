"""Where in a map the camera may be: its keyframes by their looks, or those about a place; and the picture placed by them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.mapping.places.image_descriptor import image_descriptor
from dust3r_ros.mapping.places.places import distinct_places, standpoint
from dust3r_ros.mapping.places.placing import Localisation, nowhere, place_picture
from dust3r_ros.mapping.places.relocalisation import MIN_ALIKE, rival
from dust3r_ros.mapping.types import Keyframe, MapSnapshot, Standpoint

CANDIDATES = 4  # keyframes that are tried at once
AROUND = 12  # the nearest keyframes, of which those that look most alike are tried
SAME_VIEW = np.cos(np.radians(60.0))  # between the optical axes of keyframes that may show the same
KEPT = 24  # keyframes whose tokens are kept


class PlaceFinder:
    """A map's keyframes with their descriptors, worked out once. The map does not change but in size."""

    def __init__(self, snapshot: MapSnapshot, estimator: Estimator) -> None:
        self._estimator = estimator
        self._keyframes: Sequence[Keyframe] = snapshot.keyframes
        self.standpoints: dict[int, Standpoint] = {}
        descriptors = []
        for keyframe in snapshot.keyframes:  # each once: they may be on the disk
            self.standpoints[keyframe.index] = standpoint(keyframe)
            descriptors.append(image_descriptor(keyframe.image))
        poses = np.stack([at.pose for at in self.standpoints.values()])
        self._descriptors, self._places, self._axes = np.stack(descriptors), poses[:, :3, 3], poses[:, :3, 2]
        self._row = {index: row for row, index in enumerate(self.standpoints)}
        self._tokens: OrderedDict[int, Tokens] = OrderedDict()

    def alike(self, image: NDArray[np.uint8], attempt: int = 0) -> list[Keyframe]:
        """Those of the whole map that look most like the picture [H, W, 3]; with every `attempt` the next ones, then the first again.

        First the most alike whatever their place, then those of each place that looks like it, which do not contradict each other.
        """
        ranked = self._ranked(image)
        most = [index for index, _ in ranked[: 3 * CANDIDATES]]
        rounds = [most[n : n + CANDIDATES] for n in range(0, len(most), CANDIDATES)]
        rounds[1:1] = [list(place.keyframes) for place in distinct_places(ranked, self.standpoints)]
        return [self._keyframe(index) for index in rounds[attempt % len(rounds)]]

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
        for index, at in self.standpoints.items():
            pose = at.pose.copy()
            pose[:3, 3] *= factor
            self.standpoints[index] = replace(at, pose=pose, depth=at.depth * factor)

    def rival(self, query: Tokens, found: Localisation) -> int | None:
        """A keyframe of another place that looks like the picture, verifies too and says another pose; None: there is none."""
        assert found.pose is not None
        places = distinct_places(self._ranked(query.image), self.standpoints)
        others = [place.keyframes[0] for place in places if place.alike >= MIN_ALIKE and place.keyframes[0] not in found.keyframes]
        depth = self.standpoints[found.keyframes[0]].depth

        def tokens(index: int) -> Tokens:
            return self._encoded(self._keyframe(index))

        return rival(found.pose, depth, others, self._keyframe, tokens, self._estimator, query)

    def _ranked(self, image: NDArray[np.uint8]) -> list[tuple[int, float]]:
        """(keyframe, how alike), the most alike first."""
        alike, indices = self._descriptors @ image_descriptor(image), list(self._row)
        return [(indices[row], float(alike[row])) for row in np.argsort(-alike, kind="stable")]

    def _keyframe(self, index: int) -> Keyframe:
        return self._keyframes[self._row[index]]

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
