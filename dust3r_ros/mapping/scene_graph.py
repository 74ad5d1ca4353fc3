"""Which images are estimated together: scene graphs as lists of pairs, for a set of images or as a keyframe arrives.

The names are the field's: `complete`, `swin-k` (each image with the k before it), `logwin-k` (with those 1, 2, 4, ... 2^(k-1) before it)
and `oneref-i` (image i with all others). `-cyclic` closes a swin or logwin over a set, as after a walk round a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dust3r_ros.errors import Dust3rError

Pair = tuple[int, int]


class SceneGraphError(Dust3rError):
    """A scene graph that does not exist or does not fit the images."""


@dataclass(frozen=True)
class SceneGraph:
    """A kind of scene graph. `size` is k for swin and logwin, the reference's position i for oneref."""

    kind: str
    size: int = 0
    cyclic: bool = False

    @classmethod
    def parse(cls, text: str) -> SceneGraph:
        """From its name: `complete`, `swin-3`, `swin-3-cyclic`, `logwin-4`, `oneref-0`."""
        kind, *rest = text.strip().split("-")
        cyclic = rest[-1:] == ["cyclic"]
        noncyclic = rest[-1:] == ["noncyclic"]
        numbers = rest[:-1] if cyclic or noncyclic else rest
        windowed = kind in ("swin", "logwin")
        valid = (
            (kind == "complete" and not rest)
            or (windowed and len(numbers) == 1 and numbers[0].isdigit() and int(numbers[0]) >= 1)
            or (kind == "oneref" and len(rest) == 1 and rest[0].isdigit())
        )
        if not valid:
            raise SceneGraphError(
                f"no scene graph is called '{text}': give complete, swin-K, logwin-K (K >= 1, '-cyclic' may follow) or oneref-I"
            )
        return cls(kind, int(numbers[0]) if numbers else 0, cyclic)

    def __str__(self) -> str:
        return self.kind + (f"-{self.size}" if self.kind != "complete" else "") + ("-cyclic" if self.cyclic else "")

    def _offsets(self, count: int) -> list[int]:
        if self.kind == "swin":
            return list(range(1, min(self.size, max(count - 1, 0)) + 1))
        return [2**power for power in range(self.size) if 2**power < count]

    def pairs(self, images: Sequence[int], both_directions: bool = False) -> list[Pair]:
        """All pairs of a set, each once with the earlier image first, sorted. For [A, B, C, D], swin-2 gives AB AC BC BD CD."""
        count = len(images)
        if self.kind == "oneref" and count and self.size >= count:
            raise SceneGraphError(
                f"'{self}' wants image {self.size} as reference of only {count}: give oneref-I with I from 0 to {count - 1}"
            )
        found: set[Pair] = set()
        for newest in range(count):
            found.update((images[other], images[newest]) for other in self._partners(newest, count))
        if self.cyclic:
            ends = ((i, (i + offset) % count) for i in range(count) for offset in self._offsets(count))
            found.update((images[min(a, b)], images[max(a, b)]) for a, b in ends if a != b)
        position = {image: at for at, image in enumerate(images)}
        ordered = sorted(found, key=lambda pair: (position[pair[0]], position[pair[1]]))
        return directed(ordered) if both_directions else ordered

    def _partners(self, newest: int, count: int) -> list[int]:
        """Positions before `newest` (and for oneref the reference) that it is paired with."""
        if self.kind == "complete":
            return list(range(newest))
        if self.kind == "oneref":
            # Pairs with the reference that is yet to come are brought by the reference itself.
            return list(range(newest)) if newest == self.size else [self.size] * (self.size < newest)
        return sorted(newest - offset for offset in self._offsets(count) if offset <= newest)

    def new_pairs(self, earlier: Sequence[int], newest: int, both_directions: bool = False) -> list[Pair]:
        """The pairs that a new keyframe brings to the `earlier` ones (oldest first). A cycle is closed by a set only, not here.

        The reference of oneref-i is the i-th of `earlier`, or the oldest there is while it does not exist.
        """
        if self.kind == "oneref":
            partners = [earlier[min(self.size, len(earlier) - 1)]] if earlier else []
        else:
            partners = [earlier[at] for at in self._partners(len(earlier), len(earlier) + 1)]
        new = [(partner, newest) for partner in partners]
        return directed(new) if both_directions else new


def directed(pairs: Sequence[Pair]) -> list[Pair]:
    """Each pair followed by its reverse."""
    return [pair for i, j in pairs for pair in ((i, j), (j, i))]
