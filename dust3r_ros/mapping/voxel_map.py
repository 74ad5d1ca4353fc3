"""The map as points: one a voxel, the confidence-weighted mean of all that fell into it, and never more than a set number.

Storage is sorted by voxel, so that adding a cloud is a search and a merge, whatever the size of the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.types import PointCloud

BITS = 21  # per axis: 2 million voxels to each side of the origin's centre
HALF = 1 << (BITS - 1)
SHARE = 0.005  # of the first keyframe's median depth: a voxel that nobody gave the size of
NEGLIGIBLE = 0.25  # of a voxel
KEPT_WHEN_FULL = 0.9  # so that a full map does not sort out its points at every cloud


class VoxelMap:
    """A bounded voxel grid over the world frame. `voxel_size` is in map units."""

    def __init__(self, voxel_size: float, max_points: int) -> None:
        self.voxel_size, self.max_points = voxel_size, max_points
        self._keys: NDArray[np.int64] = np.zeros(0, np.int64)
        self._sums: NDArray[np.float64] = np.zeros((0, 8))  # weighted x y z r g b, weight, largest confidence
        self._owner: NDArray[np.int32] = np.zeros(0, np.int32)  # the keyframe that saw each first and moves it along
        self._waiting: dict[int, Similarity] = {}  # small moves of owners that were not carried out yet

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, cloud: PointCloud, owner: NDArray[np.int32] | int = -1) -> None:
        """Merge a cloud; points that are not finite or lie too far to be counted are left out.

        `owner`: the keyframe (or one for each point) that a correction moves the points with.
        """
        usable = self._usable(cloud)
        keys, sums, first = self._binned(cloud, usable)
        if not len(keys):
            return
        owners = np.broadcast_to(np.asarray(owner, np.int32), len(cloud))[usable][first]
        self._merge(keys, sums, owners)

    def move(self, moves: Mapping[int, Similarity]) -> None:
        """Every voxel with its owner; those whose owner does not move stay.

        Moves of less than `NEGLIGIBLE` voxels wait until they have added up: a correction that hardly changes anything costs no re-binning.
        """
        whole = {n: move @ self._waiting[n] if n in self._waiting else move for n, move in moves.items()}
        owners = np.array(sorted(whole), np.int32)
        at = np.searchsorted(owners, self._owner)
        at[at == len(owners)] = 0
        owned = np.flatnonzero(owners[at] == self._owner) if len(owners) else np.zeros(0, np.int64)
        if not len(owned):
            return
        at = at[owned]
        linear = np.stack([whole[n].scale * whole[n].rotation for n in owners])
        offset = np.stack([whole[n].translation for n in owners])
        weight = np.maximum(self._sums[owned, 6:7], 1e-12)
        before = self._sums[owned, :3] / weight
        after = np.einsum("nij,nj->ni", linear[at], before) + offset[at]
        farthest = np.full(len(owners), -1.0)
        np.maximum.at(farthest, at, np.abs(after - before).max(1))
        go = farthest > NEGLIGIBLE * self.voxel_size
        waiting = (farthest >= 0) & ~go
        self._waiting = {n: move for n, move in self._waiting.items() if n not in whole}
        self._waiting.update({int(n): whole[int(n)] for n in owners[waiting]})
        moving = go[at]
        if moving.any():
            self._rebin(owned[moving], after[moving] * weight[moving])

    def grow(self, factor: float) -> None:
        """The whole world becomes larger about its origin, and the voxels with it: none is binned anew."""
        self.voxel_size *= factor
        self._sums[:, :3] *= factor
        self._waiting = {n: replace(move, translation=factor * move.translation) for n, move in self._waiting.items()}

    def _rebin(self, rows: NDArray[np.int64], places: NDArray[np.float64]) -> None:
        """Voxels `rows` go to where their weighted sums of x, y, z are `places`."""
        sums, owners = self._sums[rows], self._owner[rows]
        sums[:, :3] = places
        stay = np.ones(len(self), bool)
        stay[rows] = False
        self._keys, self._sums, self._owner = self._keys[stay], self._sums[stay], self._owner[stay]
        cells = np.floor(sums[:, :3] / np.maximum(sums[:, 6:7], 1e-12) / self.voxel_size)
        usable = np.isfinite(cells).all(axis=1) & (np.abs(cells) < HALF).all(axis=1)
        keys, first, group = np.unique(_key(cells[usable]), return_index=True, return_inverse=True)
        merged = np.zeros((len(keys), 8))
        np.add.at(merged, group, sums[usable])
        merged[:, 7] = 0.0
        np.maximum.at(merged[:, 7], group, sums[usable, 7])
        self._merge(keys, merged, owners[usable][first])

    def _merge(self, keys: NDArray[np.int64], sums: NDArray[np.float64], owners: NDArray[np.int32]) -> None:
        at = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), bool)
        inside = at < len(self._keys)
        known[inside] = self._keys[at[inside]] == keys[inside]
        self._sums[at[known], :7] += sums[known, :7]
        self._sums[at[known], 7] = np.maximum(self._sums[at[known], 7], sums[known, 7])
        self._keys = np.insert(self._keys, at[~known], keys[~known])
        self._sums = np.insert(self._sums, at[~known], sums[~known], axis=0)
        self._owner = np.insert(self._owner, at[~known], owners[~known])
        self._bound()

    def cloud(self) -> PointCloud:
        """One point a voxel; its confidence is the largest that was seen there."""
        weight = self._sums[:, 6:7]
        means = self._sums[:, :6] / np.maximum(weight, 1e-12)
        return PointCloud(means[:, :3].astype(np.float32), np.rint(means[:, 3:]).astype(np.uint8), self._sums[:, 7].astype(np.float32))

    def owners(self) -> NDArray[np.int32]:
        """[N] of `cloud`'s points: the keyframe that each moves with."""
        return self._owner

    def copy(self) -> VoxelMap:
        twin = VoxelMap(self.voxel_size, self.max_points)
        twin._keys, twin._sums, twin._owner = self._keys.copy(), self._sums.copy(), self._owner.copy()
        twin._waiting = dict(self._waiting)
        return twin

    def _usable(self, cloud: PointCloud) -> NDArray[np.bool_]:
        cells = cloud.points.astype(np.float64) / self.voxel_size
        finite = np.isfinite(cells).all(axis=1) & np.isfinite(cloud.confidence)
        return np.asarray(finite & (np.abs(np.where(np.isfinite(cells), cells, 0.0)) < HALF).all(axis=1))

    def _binned(self, cloud: PointCloud, usable: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Keys, sums, and for each key the first of the usable points."""
        cells = np.floor(cloud.points[usable].astype(np.float64) / self.voxel_size)
        keys, first, group = np.unique(_key(cells), return_index=True, return_inverse=True)
        confidence = cloud.confidence[usable].astype(np.float64)
        sums = np.empty((len(keys), 8))
        for column, values in enumerate((*cloud.points[usable].T, *cloud.colors[usable].T)):
            sums[:, column] = np.bincount(group, weights=values * confidence, minlength=len(keys))
        sums[:, 6] = np.bincount(group, weights=confidence, minlength=len(keys))
        sums[:, 7] = 0.0
        np.maximum.at(sums[:, 7], group, confidence)
        return keys, sums, first

    def _bound(self) -> None:
        if len(self._keys) <= self.max_points:
            return
        kept = max(1, int(KEPT_WHEN_FULL * self.max_points))
        # Stable and by weight, then voxel: the same points go every time.
        strongest = np.sort(np.lexsort((self._keys, -self._sums[:, 6]))[:kept])
        self._keys, self._sums, self._owner = self._keys[strongest], self._sums[strongest], self._owner[strongest]


def _key(cells: NDArray[np.float64]) -> NDArray[np.int64]:
    cell = cells.astype(np.int64) + HALF
    return np.asarray((cell[:, 0] << (2 * BITS)) | (cell[:, 1] << BITS) | cell[:, 2])
