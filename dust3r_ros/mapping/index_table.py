"""What is known of every keyframe there ever was, in one array: a mapping from its index that can be changed for all at once."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FIRST_ROOM = 64

Value = TypeVar("Value")
Indices = NDArray[np.int64]


class IndexTable(MutableMapping[int, Value]):
    """Values by index, 0 and up, in order of the index: numbers, or arrays of one `shape`. What is read is a copy."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self._values = np.zeros((0, *shape))
        self._known = np.zeros(0, bool)

    @property
    def indices(self) -> Indices:
        """[N] ascending."""
        return np.flatnonzero(self._known)

    def known(self, indices: Indices) -> NDArray[np.bool_]:
        """[N] whether each of these is there."""
        inside = (indices >= 0) & (indices < len(self._known))
        return np.asarray(inside & self._known[np.where(inside, indices, 0)]) if len(self._known) else np.zeros(len(indices), bool)

    def at(self, indices: Indices) -> NDArray[np.float64]:
        """[N, ...] of these, which all must be there."""
        return np.asarray(self._values[indices])

    def at_or(self, indices: Indices, default: float) -> NDArray[np.float64]:
        """[N, ...] of these; `default` for those that are not there."""
        found = np.full((len(indices), *self._values.shape[1:]), default)
        known = self.known(indices)
        found[known] = self._values[indices[known]]
        return found

    def put(self, indices: Indices, values: Any) -> None:
        """New or other values of these."""
        if len(indices):
            self._make_room(int(indices.max()) + 1)
            self._values[indices], self._known[indices] = values, True

    def __getitem__(self, index: int) -> Value:
        if index not in self:
            raise KeyError(index)
        value = self._values[index]
        found: Any = value.copy() if value.ndim else float(value)
        return found

    def __setitem__(self, index: int, value: Any) -> None:
        self._make_room(index + 1)
        self._values[index], self._known[index] = value, True

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
            self._values = np.concatenate([self._values, np.zeros((more, *self._values.shape[1:]))])
