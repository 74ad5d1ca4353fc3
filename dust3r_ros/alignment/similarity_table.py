"""Similarities of thousands of keyframes: a mapping from the keyframe's index, and arrays to compute with all of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.sim3 import Sim3
from dust3r_ros.geometry import Similarity

FIRST_ROOM = 64

Indices = NDArray[np.int64]


class SimilarityTable(MutableMapping[int, Similarity]):
    """Similarities by index, 0 and up, in order of the index. Rows of arrays, so that indices should count up without large gaps."""

    def __init__(self, content: Mapping[int, Similarity] | None = None) -> None:
        self._known = np.zeros(0, bool)
        self._all = Sim3.stack([])
        if isinstance(content, SimilarityTable):
            self._known = content._known.copy()
            self._all = Sim3(content._all.scale.copy(), content._all.rotation.copy(), content._all.translation.copy())
        elif content:
            self.update(content)

    # ---- all at once -----------------------------------------------------------------------------------------------------------------

    @property
    def indices(self) -> Indices:
        """[N] ascending."""
        return np.flatnonzero(self._known)

    def at(self, indices: Indices) -> Sim3:
        """Of these, which all must be there."""
        return self._all[indices]

    def put(self, indices: Indices, values: Sim3) -> None:
        """New or other similarities of these indices; rotations are made exact."""
        if not len(indices):
            return
        self._make_room(int(indices.max()) + 1)
        u, _, vt = np.linalg.svd(values.rotation)
        u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
        self._all.scale[indices], self._all.rotation[indices], self._all.translation[indices] = values.scale, u @ vt, values.translation
        self._known[indices] = True

    def known(self, indices: NDArray[Any]) -> NDArray[np.bool_]:
        """[N] whether each of these is there."""
        inside = (indices >= 0) & (indices < len(self._known))
        return np.asarray(inside & self._known[np.where(inside, indices, 0)]) if len(self._known) else np.zeros(len(indices), bool)

    def copy(self) -> SimilarityTable:
        return SimilarityTable(self)

    # ---- one at a time ---------------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: int) -> Similarity:
        if index not in self:
            raise KeyError(index)
        return Similarity(self._all.scale[index], self._all.rotation[index], self._all.translation[index])

    def __setitem__(self, index: int, value: Similarity) -> None:
        self._make_room(index + 1)
        self._all.scale[index], self._all.rotation[index], self._all.translation[index] = value.scale, value.rotation, value.translation
        self._known[index] = True

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
        if count <= have:
            return
        more = max(count, 2 * have, FIRST_ROOM) - have
        self._known = np.concatenate([self._known, np.zeros(more, bool)])
        self._all = Sim3(
            np.concatenate([self._all.scale, np.ones(more)]),
            np.concatenate([self._all.rotation, np.tile(np.eye(3), (more, 1, 1))]),
            np.concatenate([self._all.translation, np.zeros((more, 3))]),
        )
