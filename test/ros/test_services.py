"""Each service called, and its effect seen."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from dust3r_ros_msgs.msg import KeyframeGraph, Status
from dust3r_ros_msgs.srv import LoadMap, SaveMap
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger
from support.rig import LATCHED, image_message

from dust3r_ros.ros.conversion import cloud_from_message


@pytest.fixture
def mapped(rig, views: list):
    """A node that has a map."""
    running = rig()
    running.show(views)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map")
    return running


def test_reset_empties_the_map_and_the_next_image_starts_anew(mapped, views: list) -> None:
    clouds = mapped.listen(PointCloud2, "~/map", LATCHED)
    mapped.until(lambda: clouds and len(cloud_from_message(clouds[-1])), "the map is out")
    answer = mapped.call(Trigger, "~/reset")
    assert answer.success, answer.message
    assert mapped.node.mapper.keyframes == ()
    mapped.until(lambda: len(cloud_from_message(clouds[-1])) == 0, "the listeners have the empty map")
    mapped.show(views)  # the same stamps again: any may follow a reset
    mapped.until(lambda: mapped.node.book.now.keyframes >= 2, "there is a new map")


def test_pause_stops_looking_and_going_on_looks_again(mapped, views: list) -> None:
    assert mapped.call(SetBool, "~/pause", data=True).success
    statuses = mapped.listen(Status, "~/status")
    mapped.until(lambda: statuses and statuses[-1].state == Status.PAUSED, "the status says paused")
    frames, arrived = mapped.node.book.now.frames, mapped.node.book.arrived
    mapped._images.publish(image_message(views[0].image, views[-1].stamp + 1_000_000_000))
    mapped.until(lambda: mapped.node.book.arrived > arrived, "the image has arrived")
    assert mapped.node.book.now.frames == frames
    assert mapped.call(SetBool, "~/pause", data=False).success
    mapped.send(image_message(views[0].image, views[-1].stamp + 2_000_000_000))
    assert mapped.node.book.now.frames == frames + 1


def test_align_solves_the_window_and_publishes_it(mapped) -> None:
    graphs = mapped.listen(KeyframeGraph, "~/keyframes", LATCHED)
    mapped.until(lambda: graphs, "the graph is out")
    count = len(graphs)
    answer = mapped.call(Trigger, "~/align")
    assert answer.success, answer.message
    assert answer.message.startswith(str(len(mapped.node.mapper.keyframes)))
    mapped.until(lambda: len(graphs) > count, "the aligned graph is out")


def test_a_request_that_waits_while_the_node_is_cleaned_up_is_answered(rig) -> None:
    running = rig()
    node, go_on = running.node, threading.Event()
    node.commands.do(lambda: go_on.wait(10))
    client = running.do(lambda: running.client.create_client(Trigger, f"{running.name}/reset"))
    assert client.wait_for_service(10)
    answer = client.call_async(Trigger.Request())
    running.until(lambda: node.threads.mapping._jobs, "the request waits")
    threading.Timer(0.2, go_on.set).start()
    for step in (node.trigger_deactivate, node.trigger_cleanup):
        assert running.do(step) == TransitionCallbackReturn.SUCCESS
    running.until(answer.done, "it is answered")
    assert not answer.result().success
    assert "shutting down" in answer.result().message
    running.until(lambda: "~/reset" not in [service.srv_name for service in node.services], "the service is gone")
    assert running.do(node.trigger_configure) == TransitionCallbackReturn.SUCCESS


def test_align_and_save_without_a_map_say_so(rig, tmp_path: Path) -> None:
    running = rig()
    for answer in (running.call(Trigger, "~/align"), running.call(SaveMap, "~/save_map", path=str(tmp_path / "a.map"))):
        assert not answer.success
        assert "no map" in answer.message
    assert list(tmp_path.iterdir()) == []


def test_a_saved_map_is_loaded_by_another_node(mapped, rig, tmp_path: Path) -> None:
    file = tmp_path / "room.map"
    answer = mapped.call(SaveMap, "~/save_map", path=str(file))
    assert answer.success, answer.message
    assert file.stat().st_size > 10_000
    other = rig()
    clouds = other.listen(PointCloud2, "~/map", LATCHED)
    answer = other.call(LoadMap, "~/load_map", path=str(file))
    assert answer.success, answer.message
    before, after = mapped.node.mapper.keyframes, other.node.mapper.keyframes
    assert [keyframe.index for keyframe in after] == [keyframe.index for keyframe in before]
    np.testing.assert_allclose([keyframe.pose for keyframe in after], [keyframe.pose for keyframe in before], atol=1e-9)
    assert other.node.book.now.keyframes == len(before)
    other.until(lambda: clouds and len(cloud_from_message(clouds[-1])) > 1000, "the loaded map is out")


def test_after_loading_the_camera_is_found_again_where_the_map_ended(mapped, rig, views: list, tmp_path: Path) -> None:
    file = tmp_path / "room.map"
    assert mapped.call(SaveMap, "~/save_map", path=str(file)).success
    newest = mapped.node.mapper.keyframes[-1]
    other = rig()
    assert other.call(LoadMap, "~/load_map", path=str(file)).success
    there = next(view for view in views if view.stamp == newest.stamp)
    other.show([there], shift=60_000_000_000)
    stamp, pose = other.node.mapper.trajectory()[-1]
    assert stamp == there.stamp + 60_000_000_000
    np.testing.assert_allclose(pose, newest.pose, atol=0.05)


@pytest.mark.parametrize("content", [b"", b"this is no map", None], ids=["empty", "foreign", "missing"])
def test_a_file_that_is_no_map_leaves_the_running_map_as_it_is(mapped, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "bad.map"
    if content is not None:
        file.write_bytes(content)
    before = mapped.node.mapper
    answer = mapped.call(LoadMap, "~/load_map", path=str(file))
    assert not answer.success
    assert "bad.map" in answer.message
    assert mapped.node.mapper is before
    assert len(before.keyframes) >= 2


def test_a_place_that_cannot_be_written_is_told_and_the_earlier_file_stands(mapped, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"not a folder")
    answer = mapped.call(SaveMap, "~/save_map", path=str(blocked / "room.map"))
    assert not answer.success
    assert answer.message
    assert blocked.read_bytes() == b"not a folder"
    for path in ("", "   "):
        assert "empty" in mapped.call(SaveMap, "~/save_map", path=path).message
