"""What is known of every keyframe there ever was, in one array: a mapping from its index that can be changed for all at once."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.known_rows import Indices, KnownRows

Value = TypeVar("Value")


class IndexTable(KnownRows[Value]):
    """Values by index, 0 and up, in order of the index: numbers, or arrays of one `shape`. What is read is a copy."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self._values = np.zeros((0, *shape))

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

    def _add_room(self, more: int) -> None:
        self._values = np.concatenate([self._values, np.zeros((more, *self._values.shape[1:]))])
