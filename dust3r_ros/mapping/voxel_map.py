"""The map as points: one a voxel, the confidence-weighted mean of all that fell into it, and never more than a set number.

Storage is sorted by voxel, so that adding a cloud is a search and a merge, whatever the size of the map.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.types import PointCloud

BITS = 21  # per axis: 2 million voxels to each side of the origin's centre
HALF = 1 << (BITS - 1)
KEPT_WHEN_FULL = 0.9  # so that a full map does not sort out its points at every cloud


class VoxelMap:
    """A bounded voxel grid over the world frame. `voxel_size` is in map units."""

    def __init__(self, voxel_size: float, max_points: int) -> None:
        self.voxel_size, self.max_points = voxel_size, max_points
        self._keys: NDArray[np.int64] = np.zeros(0, np.int64)
        self._sums: NDArray[np.float64] = np.zeros((0, 8))  # weighted x y z r g b, weight, largest confidence

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, cloud: PointCloud) -> None:
        """Merge a cloud; points that are not finite or lie too far to be counted are left out."""
        keys, sums = self._binned(cloud)
        if not len(keys):
            return
        at = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), bool)
        inside = at < len(self._keys)
        known[inside] = self._keys[at[inside]] == keys[inside]
        self._sums[at[known], :7] += sums[known, :7]
        self._sums[at[known], 7] = np.maximum(self._sums[at[known], 7], sums[known, 7])
        self._keys = np.insert(self._keys, at[~known], keys[~known])
        self._sums = np.insert(self._sums, at[~known], sums[~known], axis=0)
        self._bound()

    def cloud(self) -> PointCloud:
        """One point a voxel; its confidence is the largest that was seen there."""
        weight = self._sums[:, 6:7]
        means = self._sums[:, :6] / np.maximum(weight, 1e-12)
        return PointCloud(means[:, :3].astype(np.float32), np.rint(means[:, 3:]).astype(np.uint8), self._sums[:, 7].astype(np.float32))

    def copy(self) -> VoxelMap:
        twin = VoxelMap(self.voxel_size, self.max_points)
        twin._keys, twin._sums = self._keys.copy(), self._sums.copy()
        return twin

    def _binned(self, cloud: PointCloud) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        cells = np.floor(cloud.points.astype(np.float64) / self.voxel_size)
        usable = np.isfinite(cells).all(axis=1) & (np.abs(cells) < HALF).all(axis=1) & np.isfinite(cloud.confidence)
        cell = cells[usable].astype(np.int64) + HALF
        keys, group = np.unique((cell[:, 0] << (2 * BITS)) | (cell[:, 1] << BITS) | cell[:, 2], return_inverse=True)
        confidence = cloud.confidence[usable].astype(np.float64)
        sums = np.empty((len(keys), 8))
        for column, values in enumerate((*cloud.points[usable].T, *cloud.colors[usable].T)):
            sums[:, column] = np.bincount(group, weights=values * confidence, minlength=len(keys))
        sums[:, 6] = np.bincount(group, weights=confidence, minlength=len(keys))
        sums[:, 7] = 0.0
        np.maximum.at(sums[:, 7], group, confidence)
        return keys, sums

    def _bound(self) -> None:
        if len(self._keys) <= self.max_points:
            return
        kept = max(1, int(KEPT_WHEN_FULL * self.max_points))
        # Stable and by weight, then voxel: the same points go every time.
        strongest = np.sort(np.lexsort((self._keys, -self._sums[:, 6]))[:kept])
        self._keys, self._sums = self._keys[strongest], self._sums[strongest]
