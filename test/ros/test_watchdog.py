"""When no image comes, the node says which topic and why."""

from __future__ import annotations

import pytest
import rclpy
from dust3r_ros_msgs.msg import Status
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from support.rig import RELIABLE, image_message

from dust3r_ros.ros.conversion import to_time
from dust3r_ros.ros.watchdog import Cause

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def finding(running, cause: Cause):
    return running.until(lambda: (found := running.node.watchdog.finding) and found.cause is cause and found, f"it finds: {cause.value}")


@pytest.fixture
def silent(rig):
    """A node whose image topic nobody serves, with an impatient watchdog."""

    def build(**parameters: object):
        running = rig(watchdog=0.5, **parameters)
        running.do(lambda: running.client.destroy_publisher(running._images))
        running.until(lambda: not running.node.count_publishers(running.node._images.topic_name), "nobody publishes")
        return running

    return build


def test_no_publisher_lists_the_topics_that_have_images(silent) -> None:
    running = silent()
    running.publisher(Image, f"{running.space}/left/image")
    running.until(lambda: f"{running.space}/left/image" in finding(running, Cause.NO_PUBLISHER).text, "the other topic is listed")


def test_incompatible_qos(silent) -> None:
    running = silent(reliability="reliable")
    running.publisher(Image, running.node._images.topic_name, BEST_EFFORT)
    assert "best_effort" in finding(running, Cause.INCOMPATIBLE_QOS).text


def test_another_type_on_the_topic(silent) -> None:
    running = silent()
    context = rclpy.Context()  # one participant has one type a topic
    rclpy.init(context=context)
    elsewhere = rclpy.create_node("elsewhere", context=context)
    elsewhere.create_publisher(CompressedImage, running.node._images.topic_name, RELIABLE)
    try:
        assert "image_transport to compressed" in finding(running, Cause.WRONG_TYPE).text
    finally:
        elsewhere.destroy_node()
        context.try_shutdown()


def test_a_clock_that_nobody_publishes(silent) -> None:
    running = silent(use_sim_time=True)
    running.publisher(Image, running.node._images.topic_name)
    assert "/clock" in finding(running, Cause.CLOCK_STANDS).text


def test_a_clock_that_stands(silent) -> None:
    running = silent(use_sim_time=True)
    running.publisher(Image, running.node._images.topic_name)
    clock = running.publisher(Clock, "/clock")
    running.until(lambda: running.node.count_publishers("/clock"), "somebody has a clock")
    clock.publish(Clock(clock=to_time(5)))
    running.until(lambda: "does not run" in finding(running, Cause.CLOCK_STANDS).text, "the clock stands")


def test_a_publisher_that_fits_and_is_silent(silent) -> None:
    running = silent()
    running.publisher(Image, running.node._images.topic_name)
    assert "LARGE_DATA" in finding(running, Cause.NOTHING_ARRIVES).text


def test_it_is_in_the_status_and_gone_when_images_come(rig, views: list) -> None:
    running = rig(watchdog=0.5)
    statuses = running.listen(Status, "~/status")
    running.until(lambda: statuses and "LARGE_DATA" in statuses[-1].reason, "the status says why")
    assert statuses[-1].state == Status.WAITING
    running.node.set_parameters([running.node.get_parameter("watchdog").__class__("watchdog", value=0.0)])
    running.send(image_message(views[0].image, views[0].stamp))
    running.until(lambda: statuses[-1].state == Status.INITIALISING, "the status is well again")
