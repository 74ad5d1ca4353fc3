"""The map tile by tile: all of it once, then what changes; in the end the Mapper's own, for the first listener and for a late one."""

from __future__ import annotations

import numpy as np
from dust3r_ros_msgs.msg import MapTiles
from dust3r_ros_msgs.srv import GetMapTiles
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from dust3r_ros.geometry import transform_points
from dust3r_ros.ros.conversion import cloud_from_message
from dust3r_ros.ros.map_updates import QOS, TileMap

SMALL_TILES = {"map.tile_size": 0.1, "window.size": 2, "alignment.every": 0, "alignment.loops": False}


def follow(running, tiles: TileMap, heard: list) -> TileMap:
    """Take in what has come, and ask when something is missing."""
    for message in list(heard):
        if not tiles.add(message):
            answer = running.call(GetMapTiles, "~/get_map_tiles")
            assert answer.success, answer.message
            assert tiles.add(answer.map)
    heard.clear()
    return tiles


def is_the_mappers(running, tiles: TileMap) -> bool:
    ours, theirs = tiles.cloud().points, running.node.commands.do(running.node.mapper.cloud).result(30.0).points  # on its thread
    if len(ours) != len(theirs):
        return False
    return bool(np.allclose(ours, transform_points(running.node.placement.map_from_world, theirs), atol=1e-4))


def test_the_first_listener_gets_all_and_then_only_what_changes_and_a_late_one_asks_once(rig, views: list) -> None:
    running = rig(**SMALL_TILES)
    heard = running.listen(MapTiles, "~/map_updates", QOS)
    running.show(views[:5])
    running.until(lambda: heard, "the first tiles")
    assert heard[0].whole
    messages, early = list(heard), follow(running, TileMap(), heard)

    def knows_it() -> bool:
        messages.extend(heard)
        return is_the_mappers(running, follow(running, early, heard))

    for view in views[5:]:
        running.until(knows_it, "the listener has the Mapper's map")
        running.show([view])
    late_heard = running.listen(MapTiles, "~/map_updates", QOS)
    late = TileMap()
    asked = running.call(GetMapTiles, "~/get_map_tiles")
    assert asked.success
    assert late.add(asked.map)

    running.until(lambda: knows_it() and is_the_mappers(running, follow(running, late, late_heard)), "both have the Mapper's map")
    assert [message.sequence for message in messages] == list(range(1, len(messages) + 1))
    assert not any(message.whole for message in messages[1:])
    assert any(len(message.tile_x) < len(early.tiles) for message in messages[1:])
    assert messages[0].cloud.header.frame_id == messages[0].header.frame_id == "map"


def test_after_a_reset_the_old_tiles_are_void(rig, views: list) -> None:
    running = rig(**SMALL_TILES)
    heard = running.listen(MapTiles, "~/map_updates", QOS)
    running.show(views[:4])
    running.until(lambda: heard, "the first tiles")
    tiles = follow(running, TileMap(), heard)
    assert tiles.tiles
    assert running.call(Trigger, "~/reset").success
    running.until(lambda: heard and not follow(running, tiles, heard).tiles, "the map is empty")


def test_before_there_is_a_map_there_are_no_tiles(rig) -> None:
    answer = rig().call(GetMapTiles, "~/get_map_tiles")
    assert answer.success
    tiles = TileMap()
    assert tiles.add(answer.map)
    assert not tiles.tiles


def test_the_whole_of_a_large_map_comes_rarely_but_at_once_to_a_new_listener(rig, views: list) -> None:
    running = rig(**{"publish.map_points_rate": 1.0})  # thousands of points: the next one is due in an hour
    first = running.listen(PointCloud2, "~/map", QOS)
    running.show(views[:4])
    running.until(lambda: first, "the map")
    known = len(cloud_from_message(first[-1]))
    updates = running.listen(MapTiles, "~/map_updates", QOS)
    running.until(lambda: updates, "the tiles")
    running.until(running.node.is_idle, "the map is at rest")
    told, heard = len(updates), len(first)
    running.show(views[4:])
    running.until(lambda: len(updates) > told, "the change is told: ~/map could have come with it")
    second = running.listen(PointCloud2, "~/map", QOS)
    running.until(lambda: second and len(cloud_from_message(second[-1])) > known, "the newcomer has the map as it is now")
    running.until(lambda: len(first) > heard, "the others hear that one too")
    assert len(first) == heard + 1  # and none before it
