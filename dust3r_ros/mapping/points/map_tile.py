"""One tile of the voxel map: its voxels in arrays sorted by voxel, so that adding points is a search and a merge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
Sums = NDArray[np.float64]
Owners = NDArray[np.int32]

KEPT_WHEN_FULL = 0.9  # so that a full tile does not sort out its points at every cloud
WEIGHT, LARGEST = 6, 7  # columns of the sums


class MapTile:
    """Voxels by key; of each the weighted sums of x y z r g b, the weight and the largest confidence, and the keyframe that moves it."""

    def __init__(self) -> None:
        self.keys: Keys = np.zeros(0, np.int64)
        self.sums: Sums = np.zeros((0, 8))
        self.owner: Owners = np.zeros(0, np.int32)
        self.version = 0  # of the map, when this tile last changed

    def __len__(self) -> int:
        return len(self.keys)

    def merge(self, keys: Keys, sums: Sums, owners: Owners) -> None:
        """Add voxels, sorted by key, each once."""
        at = np.searchsorted(self.keys, keys)
        known = np.zeros(len(keys), bool)
        inside = at < len(self.keys)
        known[inside] = self.keys[at[inside]] == keys[inside]
        self.sums[at[known], :LARGEST] += sums[known, :LARGEST]
        self.sums[at[known], LARGEST] = np.maximum(self.sums[at[known], LARGEST], sums[known, LARGEST])
        if not known.all():
            self.keys = np.insert(self.keys, at[~known], keys[~known])
            self.sums = np.insert(self.sums, at[~known], sums[~known], axis=0)
            self.owner = np.insert(self.owner, at[~known], owners[~known])

    def keep(self, rows: NDArray[np.bool_]) -> None:
        self.keys, self.sums, self.owner = self.keys[rows], self.sums[rows], self.owner[rows]

    def bound(self, at_most: int) -> None:
        """The most certain stay, by weight and then by voxel: the same ones every time."""
        if len(self) > at_most:
            kept = max(1, int(KEPT_WHEN_FULL * at_most))
            rows = np.zeros(len(self), bool)
            rows[np.lexsort((self.keys, -self.sums[:, WEIGHT]))[:kept]] = True
            self.keep(rows)

    def places(self) -> NDArray[np.float64]:
        """[N, 3]"""
        return np.asarray(self.sums[:, :3] / np.maximum(self.sums[:, WEIGHT : WEIGHT + 1], 1e-12))

    def copy(self) -> MapTile:
        twin = MapTile()
        twin.keys, twin.sums, twin.owner, twin.version = self.keys.copy(), self.sums.copy(), self.owner.copy(), self.version
        return twin
