"""A node that only localises: a map from a file, map -> odom and odometry as usual, and a map that nothing changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dust3r_ros_msgs.msg import Status
from dust3r_ros_msgs.srv import LoadMap, SaveMap
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from support.rig import LATCHED, image_message
from tf2_msgs.msg import TFMessage

from dust3r_ros.io.map_file import load_map, save_map
from dust3r_ros.mapping import Frame, Localiser, Mapper, MapperConfig, MapSnapshot, TrackingState, with_settings
from dust3r_ros.ros.conversion import cloud_from_message, matrix_from_transform

LATER = 60_000_000_000


@pytest.fixture(scope="module")
def snapshot(views: list) -> MapSnapshot:
    mapper = Mapper(with_settings(MapperConfig(), {"estimator.size": 160, "estimator.model": "flow"}))
    for view in views:
        mapper.add(Frame(view.stamp, view.image, view.camera))
    return mapper.snapshot()


@pytest.fixture
def file(snapshot: MapSnapshot, tmp_path: Path) -> Path:
    save_map(tmp_path / "room.map", snapshot)
    return tmp_path / "room.map"


def test_started_with_a_map_it_says_where_the_camera_is_and_the_map_stays(
    rig, views: list, snapshot: MapSnapshot, file: Path, tmp_path: Path
) -> None:
    running = rig(mode="localisation", map_file=str(file))
    assert isinstance(running.node.mapper, Localiser)
    assert running.node.book.now.keyframes == len(snapshot.keyframes)
    heard, odometry = running.listen(TFMessage, "/tf"), running.listen(Odometry, "~/odometry")
    statuses, clouds = running.listen(Status, "~/status"), running.listen(PointCloud2, "~/map", LATCHED)
    running.show(views, shift=LATER)
    assert running.node.book.now.tracking is TrackingState.TRACKING
    last = views[-1].stamp + LATER

    def transforms(parent: str) -> dict[int, np.ndarray]:
        found = [t for message in heard for t in message.transforms if t.header.frame_id == parent]
        return {t.header.stamp.sec * 10**9 + t.header.stamp.nanosec: matrix_from_transform(t.transform) for t in found}

    running.until(lambda: last in transforms("map") and len(odometry) == len(views), "the last transform and odometry are heard")
    to_map = running.node.placement.map_from_world
    keyframes = {keyframe.stamp + LATER: keyframe for keyframe in snapshot.keyframes}
    compared = 0
    for stamp, map_odom in transforms("map").items():
        if stamp in keyframes:  # from where a keyframe was taken the camera is found there
            pose = map_odom @ transforms("odom")[stamp]
            np.testing.assert_allclose(pose[:3, 3], (to_map @ keyframes[stamp].pose)[:3, 3], atol=0.03)
            compared += 1
    assert compared >= 3
    running.until(lambda: statuses and statuses[-1].state == Status.TRACKING, "the status says tracking")
    assert statuses[-1].keyframes == len(snapshot.keyframes)
    running.until(lambda: clouds and len(cloud_from_message(clouds[-1])) > 1000, "the map is out")
    answer = running.call(SaveMap, "~/save_map", path=str(tmp_path / "after.map"))
    assert answer.success, answer.message
    assert (tmp_path / "after.map").read_bytes() == file.read_bytes()


def test_it_waits_for_a_map_and_keeps_it_through_bad_input(rig, views: list, snapshot: MapSnapshot, file: Path, tmp_path: Path) -> None:
    running = rig(mode="localisation")
    running.show(views[:1])
    assert running.node.book.now.tracking is TrackingState.INITIALISING
    assert "load_map" in running.node.book.now.reason
    (tmp_path / "bad.map").write_bytes(b"no map")
    assert not running.call(LoadMap, "~/load_map", path=str(tmp_path / "bad.map")).success
    assert running.call(LoadMap, "~/load_map", path=str(file)).success
    running.show(views[1:3])
    assert running.node.book.now.tracking is TrackingState.TRACKING
    assert not running.call(LoadMap, "~/load_map", path=str(tmp_path / "bad.map")).success
    align = running.call(Trigger, "~/align")
    assert not align.success
    assert "does not change" in align.message
    running.send(image_message(views[3].image[:8, :8], views[3].stamp))  # too small
    running.send(image_message(np.zeros_like(views[0].image), views[3].stamp + 1))
    assert running.call(Trigger, "~/reset").success
    running.show(views[4:])
    assert running.node.book.now.tracking is TrackingState.TRACKING
    assert [k.index for k in running.node.mapper.keyframes] == [k.index for k in snapshot.keyframes]


def test_a_map_that_was_just_made_is_frozen_and_thawed_while_the_node_runs(rig, views: list) -> None:
    running = rig()
    running.show(views)
    made = running.node.mapper
    count = len(made.keyframes)
    assert count >= 2

    def switch(mode: str) -> None:
        message = Parameter("mode", value=mode).to_parameter_msg()
        assert running.call(SetParameters, "~/set_parameters", parameters=[message]).results[0].successful

    switch("localisation")
    running.until(lambda: isinstance(running.node.mapper, Localiser), "it only localises")
    before = running.node.placement._last_odometry
    running.show(views[2:3], shift=LATER)  # elsewhere than the newest, which the odometry does not know
    assert running.node.book.now.tracking is TrackingState.TRACKING
    np.testing.assert_allclose(running.node.placement._last_odometry, before, atol=1e-9)
    running.show(views[3:5], shift=LATER)
    assert len(running.node.mapper.keyframes) == count
    switch("mapping")
    running.until(lambda: isinstance(running.node.mapper, Mapper), "it maps again")
    assert len(running.node.mapper.keyframes) == count


@pytest.mark.parametrize("content", [None, b"this is no map"], ids=["missing", "foreign"])
def test_a_start_with_a_file_that_is_no_map_is_refused(rig, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "room.map"
    if content is not None:
        path.write_bytes(content)
    waiting = rig(activate=False, map_file=str(path))
    assert waiting.node.trigger_configure() == TransitionCallbackReturn.FAILURE


def test_a_start_parameter_goes_on_with_a_map_in_mapping_mode_too(rig, file: Path) -> None:
    running = rig(map_file=str(file))
    assert isinstance(running.node.mapper, Mapper)
    assert [k.index for k in running.node.mapper.keyframes] == [k.index for k in load_map(file).keyframes]
