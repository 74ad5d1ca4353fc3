"""The map as points: one a voxel, the confidence-weighted mean of all that fell into it, in tiles that hold a bounded number each.

Tiles are cubes of the world. A cloud changes the tiles that it falls into, a correction those whose points it moves; every tile knows when
it last changed, so that only those have to be told again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment import SimilarityTable
from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.points.map_tile import KEPT_WHEN_FULL, LARGEST, WEIGHT, Keys, MapTile, Owners, Sums
from dust3r_ros.mapping.types import PointCloud

BITS = 21  # per axis: 2 million voxels to each side of the origin's centre
HALF = 1 << (BITS - 1)
SHARE = 0.005  # of the first keyframe's median depth: a voxel that nobody gave the size of
NEGLIGIBLE = 0.25  # of a voxel
TILE_SIZE, POINTS_PER_TILE = 2.0, 200_000

_maps = itertools.count(1)

Tile = tuple[int, int, int]  # of the cubes' grid: the cube from this times its edge to one edge further


class VoxelMap:
    """A bounded voxel grid over the world frame. `voxel_size` and `tile_size` are in map units; a tile is a whole number of voxels wide."""

    def __init__(
        self, voxel_size: float, max_points: int, tile_size: float = TILE_SIZE, max_points_per_tile: int = POINTS_PER_TILE
    ) -> None:
        self.voxel_size, self.max_points, self.max_points_per_tile = voxel_size, max_points, max_points_per_tile
        self._across = max(1, round(tile_size / voxel_size))  # voxels to an edge of a tile
        self._tiles: dict[Tile, MapTile] = {}
        self._shared: set[Tile] = set()  # with a copy: to be copied before they change
        self._count = 0
        self.identity, self.version = next(_maps), 0  # which map this is; counts its changes
        self._removed: dict[Tile, int] = {}  # tiles that became empty, and when
        self._waiting = SimilarityTable()  # small moves of owners that were not carried out yet

    def __len__(self) -> int:
        return self._count

    @property
    def tile_size(self) -> float:
        """Edge of a tile, map units."""
        return self._across * self.voxel_size

    def add(self, cloud: PointCloud, owner: NDArray[np.int32] | int = -1) -> None:
        """Merge a cloud; points that are not finite or lie too far to be counted are left out.

        `owner`: the keyframe (or one for each point) that a correction moves the points with.
        """
        cells, usable = self._cells(cloud.points.astype(np.float64))
        usable &= np.isfinite(cloud.confidence)
        if not usable.any():
            return
        keys, first, group = np.unique(_key(cells[usable]), return_index=True, return_inverse=True)
        confidence = cloud.confidence[usable].astype(np.float64)
        sums = np.empty((len(keys), 8))
        for column, values in enumerate((*cloud.points[usable].T, *cloud.colors[usable].T)):
            sums[:, column] = np.bincount(group, weights=values * confidence, minlength=len(keys))
        sums[:, WEIGHT] = np.bincount(group, weights=confidence, minlength=len(keys))
        sums[:, LARGEST] = 0.0
        np.maximum.at(sums[:, LARGEST], group, confidence)
        owners = np.broadcast_to(np.asarray(owner, np.int32), len(cloud))[usable][first]
        self.version += 1
        self._merge(keys, sums, owners)
        self.bound()

    def move(self, moves: Mapping[int, Similarity]) -> None:
        """Every voxel with its owner; those whose owner does not move stay.

        Moves of less than `NEGLIGIBLE` voxels wait until they have added up: a correction that hardly changes anything costs no re-binning.
        """
        table = moves if isinstance(moves, SimilarityTable) else SimilarityTable(moves)
        whole, order = table.copy(), table.indices
        held = order[self._waiting.known(order)]
        whole.put(held, table.at(held) @ self._waiting.at(held))
        everything = whole.at(order)
        linear = everything.scale[:, None, None] * everything.rotation
        farthest = np.full(len(order), -1.0)
        after: dict[Tile, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = {}
        for name, tile in self._tiles.items():
            rows = np.flatnonzero(whole.known(tile.owner))
            if len(rows):
                at = np.searchsorted(order, tile.owner[rows])
                before = tile.places()[rows]
                moved = np.einsum("nij,nj->ni", linear[at], before) + everything.translation[at]
                np.maximum.at(farthest, at, np.abs(moved - before).max(1))
                after[name] = rows, at, moved
        go = farthest > NEGLIGIBLE * self.voxel_size
        for n in held.tolist():
            del self._waiting[n]
        waiting = order[(farthest >= 0) & ~go]
        self._waiting.put(waiting, whole.at(waiting))
        if go.any():
            self.version += 1
            self._rebin({name: (rows[go[at]], moved[go[at]]) for name, (rows, at, moved) in after.items() if go[at].any()})

    def grow(self, factor: float) -> None:
        """The whole world becomes larger about its origin, and voxels and tiles with it: none is binned anew. It is another map then."""
        self.voxel_size *= factor
        self.identity, self.version = next(_maps), self.version + 1
        self._removed.clear()
        for name in list(self._tiles):
            tile = self._own(name)
            tile.sums[:, :3] *= factor
            tile.version = self.version
        self._waiting = SimilarityTable({n: replace(move, translation=factor * move.translation) for n, move in self._waiting.items()})

    def cloud(self) -> PointCloud:
        """One point a voxel; its confidence is the largest that was seen there. Tile by tile."""
        return joined([_cloud(tile) for _, tile in self._in_order()])

    def owners(self) -> NDArray[np.int32]:
        """[N] of `cloud`'s points: the keyframe that each moves with."""
        return np.concatenate([np.zeros(0, np.int32), *(tile.owner for _, tile in self._in_order())])

    def changed(self, since: int) -> set[Tile]:
        """The tiles that changed after this version of the map, those too that hold nothing any more; since -1: all there are."""
        changed = {name for name, tile in self._tiles.items() if tile.version > since}
        return changed | {name for name, when in self._removed.items() if when > since >= 0}

    def tile(self, name: Tile) -> PointCloud:
        """What a tile holds, one point a voxel."""
        return _cloud(self._tiles.get(name) or MapTile())

    def copy(self) -> VoxelMap:
        """Tiles are copied when either changes them."""
        twin = VoxelMap(self.voxel_size, self.max_points, self.tile_size, self.max_points_per_tile)
        self._shared = set(self._tiles)
        twin._tiles, twin._shared, twin.identity = dict(self._tiles), set(self._tiles), self.identity
        twin._count, twin.version, twin._removed, twin._waiting = self._count, self.version, dict(self._removed), self._waiting.copy()
        return twin

    # ---- how -------------------------------------------------------------------------------------------------------------------------

    def _in_order(self) -> Iterator[tuple[Tile, MapTile]]:
        return ((name, self._tiles[name]) for name in sorted(self._tiles))

    def _cells(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """[N, 3] the voxels that points fall into, [N] whether they can be counted."""
        cells = np.floor(points / self.voxel_size)
        finite = np.isfinite(cells).all(axis=1)
        return cells, np.asarray(finite & (np.abs(np.where(np.isfinite(cells), cells, 0.0)) < HALF).all(axis=1))

    def _rebin(self, moving: Mapping[Tile, tuple[NDArray[np.int64], NDArray[np.float64]]]) -> None:
        """Rows of tiles go to other places."""
        every_sum, every_owner = [], []
        for name, (rows, places) in moving.items():
            tile = self._own(name)
            sums = tile.sums[rows]
            sums[:, :3] = places * np.maximum(sums[:, WEIGHT : WEIGHT + 1], 1e-12)
            every_sum.append(sums)
            every_owner.append(tile.owner[rows])
            stay = np.ones(len(tile), bool)
            stay[rows] = False
            tile.keep(stay)
            tile.version = self.version
            self._count -= len(rows)
        sums, owners = np.concatenate(every_sum), np.concatenate(every_owner)
        cells, usable = self._cells(sums[:, :3] / np.maximum(sums[:, WEIGHT : WEIGHT + 1], 1e-12))
        keys, first, group = np.unique(_key(cells[usable]), return_index=True, return_inverse=True)
        merged = np.zeros((len(keys), 8))
        for column in range(LARGEST):
            merged[:, column] = np.bincount(group, weights=sums[usable, column], minlength=len(keys))
        np.maximum.at(merged[:, LARGEST], group, sums[usable, LARGEST])
        self._merge(keys, merged, owners[usable][first])
        for name in moving:
            self._remove_if_empty(name)
        self.bound()

    def _merge(self, keys: Keys, sums: Sums, owners: Owners) -> None:
        """Voxels, sorted by key, into their tiles."""
        tile_keys = _key(np.floor_divide(_cells_of(keys), self._across))  # one number each: rows are sorted slowly, and Python waits
        tiles, group = np.unique(tile_keys, return_inverse=True)
        order = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group, minlength=len(tiles)))
        for name, rows in zip(_cells_of(tiles).tolist(), np.split(order, ends[:-1]), strict=True):
            place: Tile = (name[0], name[1], name[2])
            tile = self._own(place)
            before = len(tile)
            tile.merge(keys[rows], sums[rows], owners[rows])
            tile.bound(self.max_points_per_tile)
            tile.version = self.version
            self._removed.pop(place, None)
            self._count += len(tile) - before

    def _own(self, name: Tile) -> MapTile:
        """A tile that may be changed."""
        if name not in self._tiles:
            self._tiles[name] = MapTile()
        elif name in self._shared:
            self._tiles[name] = self._tiles[name].copy()
        self._shared.discard(name)
        return self._tiles[name]

    def _remove_if_empty(self, name: Tile) -> None:
        if name in self._tiles and not len(self._tiles[name]):
            del self._tiles[name]
            self._removed[name] = self.version

    def bound(self) -> None:
        """Over the whole map the most certain stay; of equals those of the first tiles and voxels."""
        if self._count <= self.max_points:
            return
        names = sorted(self._tiles)
        weights = np.concatenate([self._tiles[name].sums[:, WEIGHT] for name in names])
        kept = np.zeros(len(weights), bool)
        kept[np.argsort(-weights, kind="stable")[: max(1, int(KEPT_WHEN_FULL * self.max_points))]] = True
        ends = np.cumsum([len(self._tiles[name]) for name in names])
        for name, rows in zip(names, np.split(kept, ends[:-1]), strict=True):
            if not rows.all():
                tile = self._own(name)
                tile.keep(rows)
                tile.version = self.version
                self._remove_if_empty(name)
        self._count = int(kept.sum())


def joined(clouds: list[PointCloud]) -> PointCloud:
    """All in one, in this order."""
    return PointCloud(
        np.concatenate([np.zeros((0, 3), np.float32), *(cloud.points for cloud in clouds)]),
        np.concatenate([np.zeros((0, 3), np.uint8), *(cloud.colors for cloud in clouds)]),
        np.concatenate([np.zeros(0, np.float32), *(cloud.confidence for cloud in clouds)]),
    )


def _cloud(tile: MapTile) -> PointCloud:
    means = tile.sums[:, :WEIGHT] / np.maximum(tile.sums[:, WEIGHT : WEIGHT + 1], 1e-12)
    return PointCloud(means[:, :3].astype(np.float32), np.rint(means[:, 3:]).astype(np.uint8), tile.sums[:, LARGEST].astype(np.float32))


def _cells_of(keys: Keys) -> NDArray[np.int64]:
    """[N, 3] the cells that `_key` made these of."""
    return np.stack([keys >> (2 * BITS), keys >> BITS & (2 * HALF - 1), keys & (2 * HALF - 1)], axis=1) - HALF


def _key(cells: NDArray[np.floating] | NDArray[np.int64]) -> Keys:
    """[N] of cells [N, 3]; they sort alike."""
    cell = cells.astype(np.int64) + HALF
    return np.asarray((cell[:, 0] << (2 * BITS)) | (cell[:, 1] << BITS) | cell[:, 2])
