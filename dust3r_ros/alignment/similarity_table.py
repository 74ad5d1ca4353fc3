"""Similarities of thousands of keyframes: a mapping from the keyframe's index, and arrays to compute with all of them at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dust3r_ros.alignment.known_rows import Indices, KnownRows
from dust3r_ros.alignment.sim3 import Sim3
from dust3r_ros.geometry import Similarity


class SimilarityTable(KnownRows[Similarity]):
    """Similarities by index, 0 and up, in order of the index. Rows of arrays, so that indices should count up without large gaps."""

    def __init__(self, content: Mapping[int, Similarity] | None = None) -> None:
        super().__init__()
        self._all = Sim3.stack([])
        if isinstance(content, SimilarityTable):
            self._known = content._known.copy()
            self._all = Sim3(content._all.scale.copy(), content._all.rotation.copy(), content._all.translation.copy())
        elif content:
            self.update(content)

    # ---- all at once -----------------------------------------------------------------------------------------------------------------

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

    def _add_room(self, more: int) -> None:
        self._all = Sim3(
            np.concatenate([self._all.scale, np.ones(more)]),
            np.concatenate([self._all.rotation, np.tile(np.eye(3), (more, 1, 1))]),
            np.concatenate([self._all.translation, np.zeros((more, 3))]),
        )
