"""Rows by index of which some are known: what tables of keyframes have in common, whatever a row holds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FIRST_ROOM = 64

Value = TypeVar("Value")
Indices = NDArray[np.int64]


class KnownRows(MutableMapping[int, Value]):
    """A mapping from indices, 0 and up, in their order. Who derives from it keeps the rows and makes room for more."""

    def __init__(self) -> None:
        self._known = np.zeros(0, bool)

    @abstractmethod
    def _add_room(self, more: int) -> None:
        """So many more rows, of which nothing is known."""

    @property
    def indices(self) -> Indices:
        """[N] ascending."""
        return np.flatnonzero(self._known)

    def known(self, indices: NDArray[Any]) -> NDArray[np.bool_]:
        """[N] whether each of these is there."""
        inside = (indices >= 0) & (indices < len(self._known))
        return np.asarray(inside & self._known[np.where(inside, indices, 0)]) if len(self._known) else np.zeros(len(indices), bool)

    def __delitem__(self, index: int) -> None:
        if index not in self:
            raise KeyError(index)
        self._known[index] = False

    def __contains__(self, index: object) -> bool:
        return isinstance(index, (int, np.integer)) and bool(0 <= index < len(self._known) and self._known[int(index)])

    def __len__(self) -> int:
        return int(np.count_nonzero(self._known))

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices.tolist())

    def _make_room(self, count: int) -> None:
        have = len(self._known)
        if count > have:
            more = max(count, 2 * have, FIRST_ROOM) - have
            self._known = np.concatenate([self._known, np.zeros(more, bool)])
            self._add_room(more)
