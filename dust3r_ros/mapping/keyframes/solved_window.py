"""Keyframes while they are solved: how they come into the window, what its alignment makes of them, and how they leave it for good."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment import AlignedView
from dust3r_ros.estimators import Tokens
from dust3r_ros.mapping.keyframes.map_parts import MapParts
from dust3r_ros.mapping.keyframes.refined_depth import RefinedDepths
from dust3r_ros.mapping.keyframes.window import MIN_TRUSTED_SHARE, Entry, KeyframeWindow, first_map_frame, in_frame, trusted_share
from dust3r_ros.mapping.points.keyframe_views import whole
from dust3r_ros.mapping.types import Keyframe


class SolvedWindow:
    """Of one map, whose parts know nothing of it."""

    def __init__(self, parts: MapParts, window: KeyframeWindow) -> None:
        self._parts, self._window = parts, window
        self._refined = RefinedDepths()

    @property
    def keyframes(self) -> Iterator[Keyframe]:
        """Those that have a place, oldest first."""
        latest = self._parts.store.latest
        return (latest[index] for index in self._window.indices if index in latest)

    @property
    def views(self) -> dict[int, AlignedView]:
        """The same as the map has them."""
        return {k.index: AlignedView(k.pose, k.camera.fx, k.depth, k.confidence) for k in self.keyframes}

    # ---- in ----------------------------------------------------------------------------------------------------------------------------

    def enter(self, index: int, entry: Entry) -> None:
        """The newest one, which has no pairs yet."""
        self._window.add(index, entry)
        self._parts.aligner.add(index, [], entry.focal, entry.principal_point)

    def reopen(self, keyframe: Keyframe, tokens: Tokens) -> None:
        """An old keyframe is the window's newest, held where it is."""
        keyframe = whole(keyframe, tokens.image, tokens.camera)
        self._parts.store.put(keyframe)
        entry = Entry(keyframe.stamp, tokens, keyframe.name)
        self._window.add(keyframe.index, entry)
        view = AlignedView(keyframe.pose, keyframe.camera.fx, keyframe.depth, keyframe.confidence)
        self._parts.aligner.reopen(keyframe.index, view, entry.focal, entry.principal_point)

    # ---- solved ------------------------------------------------------------------------------------------------------------------------

    def accept(self, views: dict[int, AlignedView] | None, newest: int) -> tuple[Keyframe, ...]:
        """Keep what the window's alignment found; empty if the newest keyframe found no place or nothing trusted is known of it."""
        if not views or newest not in views or trusted_share(views[newest]) < MIN_TRUSTED_SHARE:
            return ()
        latest = self._parts.store.latest
        if not latest:
            if trusted_share(views[min(views)]) < MIN_TRUSTED_SHARE:
                return ()
            frame = first_map_frame(views)
            self._parts.aligner.rescale(frame)
            views = {index: in_frame(view, frame) for index, view in views.items()}
        revised = []
        for index, view in sorted(views.items()):
            keyframe = self._window.keyframe(index, view, latest.get(index))
            if keyframe is not None and (index in latest or trusted_share(view) >= MIN_TRUSTED_SHARE):
                keyframe = self._with_refined(keyframe, view)
                self._parts.store.put(keyframe)
                revised.append(keyframe)
        return tuple(revised)

    def refine(self, index: int, depth: NDArray[np.float32], confidence: NDArray[np.float32]) -> None:
        """See `KeyframeMap.refine`."""
        keyframe = self._parts.store.latest[index]
        self._parts.store.put(self._refined.fuse(keyframe, self._unit(index), self._pairs_of(index), depth, confidence))

    # ---- out ---------------------------------------------------------------------------------------------------------------------------

    def slide(self, size: int) -> None:
        """Let the oldest keyframes go: their points into the map for good, themselves remembered compactly."""
        while len(self._window) > size:
            self._retire(self._window.indices[0])

    def close(self) -> None:
        """Let all go."""
        self._parts.points.window_changed()
        for index in self._window.indices:
            self._retire(index)

    def _retire(self, oldest: int) -> None:
        parts = self._parts
        view, known = parts.aligner.retire(oldest), parts.store.latest.get(oldest)
        if known is not None:
            if oldest not in parts.points.fused:  # else it has been in the window before, and its depth is better than what it is here for
                aligned = None if view is None else self._window.keyframe(oldest, view, known)
                known = known if aligned is None or view is None else self._with_refined(aligned, view)
                parts.store.put(known)
                parts.points.fuse(known, list(self.keyframes))
                parts.finder.remember(oldest, known.image, known.camera)
            parts.shelve(oldest)
        self._window.remove(oldest)
        self._refined.forget(oldest)

    # ---- depth that pairs with frames have refined -------------------------------------------------------------------------------------

    def _with_refined(self, keyframe: Keyframe, view: AlignedView) -> Keyframe:
        """Its depth, where it was just aligned, with what pairs with frames that are no keyframes have said."""
        if view.depth is None:
            return keyframe
        return self._refined.aligned(keyframe, self._unit(keyframe.index), self._pairs_of(keyframe.index))

    def _unit(self, index: int) -> float:
        return self._parts.store.units.get(index, 1.0)

    def _pairs_of(self, index: int) -> int:
        """How many tell of a keyframe; at least one."""
        return max(1, self._parts.edges.count(index))
