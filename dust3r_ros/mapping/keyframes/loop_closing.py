"""Whether a new keyframe stands where an old one stood: looks propose, geometry and everything near by must agree.

A loop enters the graph when (1) both directions of the pair say the same, (2) drift since the old keyframe can explain it, (3) a second
pair of neighbours of the ends puts the graph at the same place, and (4) no other place that looks alike, nor the one where the graph has
the camera now, passes (1) and (2) and says something else: what looks the same everywhere tells nothing, and a place that differs comes.
The keyframes just passed are no such place: wherever the new one goes, they go with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from dust3r_ros.alignment import Aligner, Link
from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.mapping.keyframes.keyframe_store import KeyframeStore
from dust3r_ros.mapping.keyframes.window import KeyframeWindow, settled
from dust3r_ros.mapping.places.loops import LoopFinder, believable
from dust3r_ros.mapping.places.places import Place, distinct_places, typical_depth
from dust3r_ros.mapping.scene_graph import Pair

NEAREST = 2  # old keyframes where the graph has the camera now
CARRIED = 4.0  # times the depth: how lately a keyframe was passed that goes where the new one goes


class LoopCloser:
    """Verifies what the finder proposes and joins what it believes."""

    def __init__(self, estimator: Estimator, window: KeyframeWindow, aligner: Aligner, finder: LoopFinder, store: KeyframeStore) -> None:
        self._estimator, self._window, self._aligner, self._finder, self._store = estimator, window, aligner, finder, store

    def close(self, index: int, ranked: Sequence[tuple[int, float]]) -> tuple[Pair, ...]:
        """What was joined. `index`: the newest keyframe of the window; `ranked`: (old keyframe, how alike), the most alike first."""
        depth = typical_depth(self._store.latest[index])
        near = self._aligner.judge.within_drift(index, depth)
        places = distinct_places([entry for entry in ranked if entry[0] in near], self._store.standpoints)
        if not places:
            return ()
        tokens: dict[int, Tokens] = {}
        link = self._link(places[0].keyframes[0], index, tokens)
        if link is None:
            return ()
        support = self._support(link, places[0], tokens)
        if support is None:
            return ()
        rivals = [place.keyframes[0] for place in places[1:]]
        carried = self._aligner.judge.carried_by(link, CARRIED * depth)
        others = [n for n in self._finder.indices if n not in carried]
        rivals += [n for n in self._aligner.judge.nearest(index, NEAREST, others) if n not in rivals]
        if any(self._contradicts(link, rival, tokens) for rival in rivals):
            return ()
        return tuple(self._aligner.join([link, support]))

    def _support(self, link: Link, place: Place, tokens: dict[int, Tokens]) -> Link | None:
        """A second pair, of other keyframes near by at one end at least, that says the same."""
        before = [n for n in self._window.indices if n != link.j and n in self._store.latest][-1:]
        others = [n for n in place.keyframes if n != link.i][:1] or self._beside(link.i)
        for old, new in [(old, new) for new in before for old in [*others, link.i]][:2]:
            second = self._link(old, new, tokens)
            if second is not None and self._aligner.judge.same_loop(link, second):
                return second
        return None

    def _contradicts(self, link: Link, rival: int, tokens: dict[int, Tokens]) -> bool:
        """Whether another old keyframe is verified too, and puts the new one at another place."""
        other = self._link(rival, link.j, tokens)
        return other is not None and not self._aligner.judge.same_loop(link, other)

    def _beside(self, old: int) -> list[int]:
        """The remembered keyframe that came next to `old`."""
        known = [n for n in self._finder.indices if n != old and n in self._store.latest]
        return [min(known, key=lambda n: (abs(n - old), n))] if known else []

    def _link(self, old: int, new: int, tokens: dict[int, Tokens]) -> Link | None:
        """The pair in both directions, if they agree and drift can explain it. `tokens` keeps those of old keyframes."""
        if old in self._window.indices or old not in self._store.latest:
            return None
        if old not in tokens:
            tokens[old] = self._estimator.encode(self._finder.picture(old), self._finder.camera(old))
        estimated = self._window.estimate([(old, new), (new, old)], {old: tokens[old]})
        predictions = [p for p in estimated if {p.i, p.j} == {old, new}]  # an estimator may revise others too
        if not believable(predictions):
            return None
        views = {n: settled(self._store.latest[n]) for n in (old, new)}
        links = self._aligner.judge.links(predictions, views)
        return links[0] if links else None
