"""~/map_updates: all tiles of the map to the first who listens, then those that have changed; ~/get_map_tiles for the late."""

from __future__ import annotations

from typing import Any

import numpy as np
from dust3r_ros_msgs.msg import MapTiles
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header

from dust3r_ros.mapping import Localiser, Mapper, PointCloud
from dust3r_ros.mapping.points.map_tiles import MapVersion, TileChanges
from dust3r_ros.mapping.points.voxel_map import Tile, joined
from dust3r_ros.ros.conversion import cloud_from_message, cloud_message

# What is sent while a listener is still being matched is repeated to it.
QOS = QoSProfile(depth=8, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class MapUpdates:
    """The stream of changes. On the worker's thread, but for `has_listeners`."""

    def __init__(self, node: Node) -> None:
        self.publisher: Any = node.create_publisher(MapTiles, "~/map_updates", QOS)
        self._told: MapVersion | None = None
        self._sequence = 0

    @property
    def has_listeners(self) -> bool:
        return bool(self.publisher.get_subscription_count())

    def forget(self) -> None:
        """Nobody listens: the next one hears all."""
        self._told = None

    def publish(self, mapper: Mapper | Localiser, header: Header, to_map: NDArray[np.float64] | None) -> None:
        """What has changed since the last time, if anything has."""
        changes = mapper.tiles(self._told)
        self._told = changes.version
        if changes.changed or changes.is_whole:
            self._sequence += 1
            self.publisher.publish(tiles_message(changes, self._sequence, header, to_map))

    def whole(self, mapper: Mapper | Localiser, header: Header, to_map: NDArray[np.float64] | None) -> MapTiles:
        """All tiles, for one who comes late."""
        return tiles_message(mapper.tiles(), self._sequence, header, to_map)


def tiles_message(changes: TileChanges, sequence: int, header: Header, to_map: NDArray[np.float64] | None) -> MapTiles:
    """`to_map`: 4x4, the map's world to the header's frame."""
    names = np.array(list(changes.changed), np.int64).reshape(-1, 3)
    return MapTiles(
        header=header,
        map_id=changes.version.identity,
        sequence=sequence,
        whole=changes.is_whole,
        tile_size=changes.tile_size,
        tile_x=names[:, 0].tolist(),
        tile_y=names[:, 1].tolist(),
        tile_z=names[:, 2].tolist(),
        point_counts=[len(cloud) for cloud in changes.changed.values()],
        cloud=cloud_message(joined(list(changes.changed.values())), header, to_map),
    )


class TileMap:
    """The map as a listener keeps it: put in what comes, and ask `~/get_map_tiles` when `add` says that something is missing."""

    def __init__(self) -> None:
        self.tiles: dict[Tile, PointCloud] = {}
        self._map_id: int | None = None
        self._sequence = -1

    def add(self, message: MapTiles) -> bool:
        """Whether the map is complete with this message; if not, what came before it is missing and the map stands as it was."""
        is_known = message.map_id == self._map_id
        if is_known and message.sequence <= self._sequence and not message.whole:
            return True  # it is in already
        if not message.whole and (not is_known or message.sequence != self._sequence + 1):
            return False
        if message.whole:
            self.tiles.clear()
        self._map_id, self._sequence = message.map_id, message.sequence
        cloud, end = cloud_from_message(message.cloud), 0
        for name, count in zip(zip(message.tile_x, message.tile_y, message.tile_z, strict=True), message.point_counts, strict=True):
            part, end = slice(end, end + count), end + count
            if count:
                self.tiles[name] = PointCloud(cloud.points[part], cloud.colors[part], cloud.confidence[part])
            else:
                self.tiles.pop(name, None)
        return True

    def cloud(self) -> PointCloud:
        """All points, tile by tile."""
        return joined([self.tiles[name] for name in sorted(self.tiles)])
