"""Wheels, a depth sensor and the node: the map becomes metric, odom stays smooth, ~/status says so."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from dust3r_ros_msgs.msg import Status
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Image, PointCloud2
from support.rig import CAMERA_FRAME, LATCHED, image_message
from support.simulated_estimator import SimulatedEstimator
from support.walk import once_round, wheels
from tf2_msgs.msg import TFMessage

from dust3r_ros.geometry.rotations import inverse_pose, pose_matrix
from dust3r_ros.mapping import Mapper
from dust3r_ros.ros.conversion import (
    cloud_from_message,
    depth_message,
    from_time,
    matrix_from_transform,
    pose_message,
    to_header,
    transform_message,
)
from dust3r_ros.ros.node import TICK
from dust3r_ros.ros.placement import OPTICAL_IN_BODY

BASE_CAMERA = pose_matrix(np.eye(3), (0.2, 0.0, 0.4)) @ OPTICAL_IN_BODY
SETTINGS = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}


def know_the_room(running) -> None:
    """The node's mapper gets an estimator that knows the pictures."""
    estimator = SimulatedEstimator(once_round(), size=160, noise=0.02)
    running.node.mapper = Mapper(running.node.mapper.config, estimator, background=True)


def distances(poses: list[np.ndarray]) -> np.ndarray:
    return np.array([np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in pairwise(poses)])


def test_wheel_odometry_on_tf_makes_the_map_metric_and_stays_what_it_is(rig) -> None:
    views = once_round()
    bases = [pose @ inverse_pose(BASE_CAMERA) for pose in wheels(views)]
    running = rig(base_frame="base_link", publish_odom_tf=False, **SETTINGS)
    know_the_room(running)
    running.static_transform("base_link", CAMERA_FRAME, BASE_CAMERA)
    running.until(lambda: running.node.buffer.parent(CAMERA_FRAME), "the static transform is known")
    tf = running.publisher(TFMessage, "/tf")
    running.until(lambda: tf.get_subscription_count(), "the node listens to /tf")
    heard, statuses = running.listen(TFMessage, "/tf"), running.listen(Status, "~/status")
    diagnostics, clouds = running.listen(DiagnosticArray, "/diagnostics"), running.listen(PointCloud2, "~/map", LATCHED)

    def turn_wheels(n: int) -> None:
        tf.publish(TFMessage(transforms=[transform_message(bases[n], to_header(views[n].stamp, "odom"), "base_link")]))

    turn_wheels(0)
    running.until(lambda: running.node.buffer.parent("base_link"), "the wheels are known")
    for n, view in enumerate(views):
        turn_wheels(min(n + 1, len(views) - 1))
        running.show([view])
    running.until(lambda: statuses[-1].scale_source == "odometry" and statuses[-1].frames == len(views), "the status tells the scale")
    assert 0.01 <= statuses[-1].scale_uncertainty < 0.05
    assert {status.scale_source for status in statuses} <= {"none", "odometry"}
    assert all(np.isnan(status.scale_uncertainty) for status in statuses if status.scale_source == "none")
    said = [pair.value for array in diagnostics for item in array.status for pair in item.values if pair.key == "scale"]
    assert said[-1].startswith("odometry, ")

    # Only map -> odom is the node's; with it the wheels' own odometry gives the base's true place, but for where the map begins.
    last = views[-1].stamp

    def corrections() -> list[np.ndarray]:
        ours = [t for message in heard for t in message.transforms if t.header.frame_id == "map"]
        return [matrix_from_transform(t.transform) for t in ours if from_time(t.header.stamp) == last]

    correction = running.until(corrections, "the last correction has come")[-1]
    placed, true = correction @ bases[-1], [view.pose @ inverse_pose(BASE_CAMERA) for view in (views[0], views[-1])]
    np.testing.assert_allclose(placed[:3, 3], (inverse_pose(true[0]) @ true[1])[:3, 3], atol=0.15)
    running.until(lambda: clouds, "the map has come")
    assert 2.0 < np.ptp(cloud_from_message(clouds[-1]).points, axis=0).max() < 8.0


@pytest.mark.parametrize("is_theirs", [True, False])
def test_odom_on_tf_is_looked_at_where_it_is_not_the_nodes_own(rig, is_theirs: bool) -> None:
    running = rig(base_frame="base_link", publish_tf=False, publish_odom_tf=not is_theirs)
    node, told = running.node, []
    node.mapper.add_odometry = lambda stamp, _: told.append(stamp)
    running.static_transform("base_link", CAMERA_FRAME, BASE_CAMERA)
    running.until(lambda: node.buffer.parent(CAMERA_FRAME), "the static transform is known")
    node._camera_frame = CAMERA_FRAME
    tf = running.publisher(TFMessage, "/tf")
    running.until(lambda: tf.get_subscription_count(), "the node listens to /tf")
    tf.publish(TFMessage(transforms=[transform_message(np.eye(4), to_header(7, "odom"), "base_link")]))
    running.until(lambda: node.buffer.parent("base_link"), "the transform is known")
    running.do(lambda: None)  # and told of
    node.commands.do(node._hand_over_metres).result(10)
    assert told == ([7] if is_theirs else [])


def test_odometry_from_before_the_first_image_waits_for_the_cameras_frame(rig, views: list) -> None:
    running = rig(**{"scale.odom_topic": "wheels"}, base_frame="base_link")
    said: list[str] = []
    node, node._warn._say = running.node, said.append
    running.static_transform("base_link", CAMERA_FRAME, BASE_CAMERA)
    running.until(lambda: node.buffer.parent(CAMERA_FRAME), "the static transform is known")
    odometry = running.publisher(Odometry, "wheels")
    running.until(odometry.get_subscription_count, "the node listens to the wheels")
    odometry.publish(Odometry(header=to_header(views[0].stamp, "wheel_odom"), child_frame_id="base_link"))
    running.until(lambda: node.metric_inputs._odometry or said, "they are heard")
    time.sleep(3 * TICK)
    assert len(node.metric_inputs._odometry) == 1
    running.show(views[:1])
    running.until(lambda: not node.metric_inputs._odometry, "the map is told of them")
    assert said == []


def test_the_nodes_own_odom_goes_on_in_metres_without_a_jump(rig) -> None:
    views = once_round()
    running = rig(**{"scale.odom_topic": "wheels", "scale.depth_topic": "sensor/depth", **SETTINGS}, base_frame="base_link")
    know_the_room(running)
    running.static_transform("base_link", CAMERA_FRAME, BASE_CAMERA)
    running.until(lambda: running.node.buffer.parent(CAMERA_FRAME), "the static transform is known")
    odometry = running.publisher(Odometry, "wheels")
    sensor = running.publisher(Image, "sensor/depth")
    running.until(lambda: odometry.get_subscription_count() and sensor.get_subscription_count(), "the node listens to both")
    heard, statuses = running.listen(TFMessage, "/tf"), running.listen(Status, "~/status")
    sensor.publish(image_message(views[0].image, views[0].stamp))  # of the wrong kind
    for view, pose in zip(views, wheels(views), strict=True):
        message = Odometry(header=to_header(view.stamp, "wheel_odom"), child_frame_id="base_link")
        message.pose.pose = pose_message(pose @ inverse_pose(BASE_CAMERA))
        odometry.publish(message)
        sensor.publish(depth_message(view.depth, to_header(view.stamp, CAMERA_FRAME), unknown=0.0))
        running.show([view])
    running.until(lambda: statuses[-1].scale_source == "odometry+depth", "both are in the scale")
    assert statuses[-1].scale_uncertainty < 0.015

    def transforms(parent: str) -> dict[int, np.ndarray]:
        found = [t for message in heard for t in message.transforms if t.header.frame_id == parent]
        return {from_time(t.header.stamp): matrix_from_transform(t.transform) for t in found}

    running.until(lambda: views[-1].stamp in transforms("map"), "the last transform is heard")
    true = {view.stamp: view.pose @ inverse_pose(BASE_CAMERA) for view in views}
    odom = transforms("odom")
    ratios = distances(list(odom.values())) / distances([true[stamp] for stamp in odom])
    assert np.median(ratios[:5]) < 0.7  # another unit
    assert np.median(ratios[-20:]) > 0.85
    assert ratios.max() < 1.4  # as far as a base that really moved
    jumps = distances(list(transforms("map").values()))
    assert jumps.max() > 0.2  # the map's correction went here
