"""Where in a map that grows a picture was taken: among the keyframes of its window and all that have left it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.mapping.keyframes.map_parts import MapParts
from dust3r_ros.mapping.keyframes.window import KeyframeWindow
from dust3r_ros.mapping.places.image_descriptor import image_descriptor
from dust3r_ros.mapping.places.relocalisation import Relocalisation, relocalise

NEWEST = 3  # keyframes that a camera which was lost a moment ago is compared with first


@dataclass(frozen=True, eq=False)
class PlaceSearch:
    """Of one KeyframeMap. Nothing of it changes."""

    parts: MapParts
    window: KeyframeWindow
    estimator: Estimator

    def find(self, query: Tokens, moved_little: bool = False) -> Relocalisation:
        """See `KeyframeMap.find`."""
        store, window = self.parts.store, self.window.indices
        newest = [n for n in window if n in store.latest][: -NEWEST - 1 : -1] if moved_little else []
        return relocalise(query, self._ranked(query), store.latest, store.standpoints, self._tokens, self.estimator, newest)

    def likeness(self, query: Tokens) -> float:
        """See `KeyframeMap.likeness`."""
        return max((alike for _, alike in self._ranked(query)), default=-1.0)

    def _ranked(self, query: Tokens) -> list[tuple[int, float]]:
        """(keyframe, how alike its picture is), the most alike first."""
        descriptor = image_descriptor(query.image)
        ranked = [(n, alike) for n, alike in self.parts.finder.ranked(descriptor) if n not in self.window.indices]
        ranked += [(n, float(image_descriptor(self.window[n].tokens.image) @ descriptor)) for n in self.window.indices]
        return sorted(ranked, key=lambda entry: (-entry[1], entry[0]))

    def _tokens(self, index: int) -> Tokens:
        """Of any keyframe that is remembered."""
        if index in self.window.indices:
            return self.window[index].tokens
        tokens = self.estimator.encode(self.parts.finder.picture(index), self.parts.finder.camera(index))
        return replace(tokens, source=self.parts.store.latest[index].source)
