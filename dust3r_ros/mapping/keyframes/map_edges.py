"""The edges of a map's graph: directed pairs of keyframes in the order in which they came, and how many of them tell of each keyframe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from dust3r_ros.mapping.scene_graph import Pair


class MapEdges:
    """Of one map."""

    def __init__(self) -> None:
        self._pairs: list[Pair] = []
        self._of: Counter[int] = Counter()

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def extend(self, pairs: Iterable[Pair]) -> None:
        new = list(pairs)
        self._pairs.extend(new)
        self._of.update(keyframe for pair in new for keyframe in pair)

    def count(self, keyframe: int) -> int:
        """How many tell of it, in each direction."""
        return self._of[keyframe]

    def discard(self, rejected: set[Pair]) -> None:
        """Those between these keyframes, (lower, higher), in both directions."""
        kept = [pair for pair in self._pairs if (min(pair), max(pair)) not in rejected]
        self._pairs, self._of = kept, Counter(keyframe for pair in kept for keyframe in pair)
