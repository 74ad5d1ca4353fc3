"""The map told tile by tile: all of it once, and after that the tiles that have changed."""

from __future__ import annotations

from dataclasses import dataclass

from dust3r_ros.mapping.points.voxel_map import Tile, VoxelMap
from dust3r_ros.mapping.types import PointCloud


@dataclass(frozen=True)
class MapVersion:
    """What somebody was told of a map; only to be given back."""

    identity: int  # of the map: another one after a reset, after loading, after a change of its voxels' size
    settled: int  # version of the points whose keyframes have left the window
    open: frozenset[Tile]  # tiles with points of the window, which come and go


@dataclass(frozen=True, eq=False)
class TileChanges:
    """Tiles that are other than they were."""

    version: MapVersion  # to ask for the next changes with
    tile_size: float  # map units: tile (x, y, z) reaches from (x, y, z) to (x + 1, y + 1, z + 1) times this
    is_whole: bool  # these are all tiles there are: others are to be forgotten
    changed: dict[Tile, PointCloud]  # all points of each, in the world; none: the tile is empty now


def tile_changes(voxels: VoxelMap, settled: int, since: MapVersion | None) -> TileChanges:
    """`voxels`: settled points and those of the window, which came after version `settled`. `since` None: all there is."""
    now = MapVersion(voxels.identity, settled, frozenset(voxels.changed(settled)))
    is_whole = since is None or since.identity != now.identity
    names = voxels.changed(-1) if since is None or is_whole else voxels.changed(since.settled) | since.open
    return TileChanges(now, voxels.tile_size, is_whole, {name: voxels.tile(name) for name in sorted(names)})
