"""Bad input one by one: the node stays up, says why, and goes on with the next good image."""

from __future__ import annotations

import time
import weakref

import numpy as np
import pytest
from dust3r_ros_msgs.msg import Status
from lifecycle_msgs.srv import GetState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import Trigger
from support.rig import CAMERA_FRAME, image_message
from tf2_msgs.msg import TFMessage

from dust3r_ros.ros.conversion import camera_info_message, to_header
from dust3r_ros.ros.placement import OPTICAL_IN_BODY

SECOND = 1_000_000_000


def goes_on(running, views: list) -> None:
    """A map comes of the good images after the bad one."""
    running.show(views, shift=10 * SECOND)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map")
    assert not running.node.book.now.fault


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encoding": "rgb888"}, "encoding"),
        ({"encoding": "32FC1"}, "32FC1"),
        ({"encoding": "rgba8"}, "step"),
        ({"data": b"\x00" * 1000}, "1000"),
        ({"width": 0, "height": 0, "step": 0, "data": b""}, "0x0"),
        ({"step": 10}, "10"),
    ],
    ids=["unknown encoding", "not a colour encoding", "mislabelled", "short data", "zero-sized", "step too small"],
)
def test_an_image_that_cannot_be_decoded_is_named_and_skipped(rig, views: list, changes: dict, says: str) -> None:
    running = rig()
    statuses = running.listen(Status, "~/status")
    running.send(image_message(views[0].image, views[0].stamp, **changes))
    assert running.node.book.now.unusable == 1
    running.until(lambda: statuses and statuses[-1].state == Status.FAULT, "the status says fault")
    assert says in statuses[-1].reason
    assert "\n" not in statuses[-1].reason
    goes_on(running, views)


@pytest.mark.parametrize("level", [0, 127, 255])
def test_one_colour_images_are_waited_out(rig, views: list, level: int) -> None:
    running = rig()
    for k in range(3):
        running.send(image_message(np.full_like(views[0].image, level), views[0].stamp + k * SECOND // 10))
    assert running.node.book.now.keyframes == 0
    goes_on(running, views)


def test_a_size_that_changes_in_mid_stream_does_not_end_it(rig, views: list) -> None:
    running = rig()
    running.show(views)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map")
    keyframes = len(running.node.mapper.keyframes)
    half = np.ascontiguousarray(views[-1].image[::2, ::2])
    for k in (1, 2, 3):
        running.send(image_message(half, views[-1].stamp + k * SECOND))
    assert len(running.node.mapper.keyframes) >= keyframes  # nothing was lost
    running.show(views, shift=20 * SECOND)
    assert running.node.book.now.frames == 2 * len(views) + 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda info: setattr(info, "k", [float("nan")] * 9),
        lambda info: setattr(info, "k", [0.0] * 9),
        lambda info: setattr(info, "k", [-1.0, 0.0, 5.0, 0.0, -1.0, 5.0, 0.0, 0.0, 1.0]),
        lambda info: setattr(info, "width", 999),
        lambda info: setattr(info, "distortion_model", "fancy") or setattr(info, "d", [1.0, 2.0]),
    ],
    ids=["NaN", "zeros", "negative focal length", "another size", "unknown distortion"],
)
def test_a_camera_info_that_makes_no_sense_is_left_out(rig, views: list, spoil) -> None:
    running = rig(camera_info_wait=0.0)
    said: list[str] = []
    running.node._warn._say = said.append
    stamp = views[0].stamp
    info: CameraInfo = camera_info_message(views[0].camera, to_header(stamp, CAMERA_FRAME))
    spoil(info)
    running._infos.publish(info)
    running.until(lambda: said or running.node.infos._cameras, "the CameraInfo has come")
    running.send(image_message(views[0].image, stamp))
    running.until(lambda: said, "the node has said so")
    assert "CameraInfo" in said[0]
    running.show(views[1:], calibrated=False)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map, with an assumed camera")
    assert all(keyframe.source.assumed for keyframe in running.node.mapper.keyframes)


def test_a_camera_info_that_makes_no_sense_is_not_waited_for_any_longer(rig, views: list) -> None:
    running = rig(camera_info_wait=60.0)  # longer than the test's patience
    info = camera_info_message(views[0].camera, to_header(views[0].stamp, CAMERA_FRAME))
    info.k = [0.0] * 9
    running._images.publish(image_message(views[0].image, views[0].stamp))
    running._infos.publish(info)
    running.until(lambda: running.node.book.now.frames == 1, "the image that waited is handled")
    running.show(views[1:3], calibrated=False)


def test_one_image_alone_waits_for_a_camera_info_that_never_comes(rig, views: list) -> None:
    running = rig(camera_info_wait=2.0)

    def seconds(some: list) -> float:
        start = time.monotonic()
        running.show(some, calibrated=False)
        return time.monotonic() - start

    assert seconds(views[:1]) >= 2.0
    assert seconds(views[1:5]) < 4.0
    assert running.call(Trigger, "~/reset").success
    assert seconds(views[5:6]) >= 2.0


def test_a_good_camera_info_is_used(rig, views: list) -> None:
    running = rig()
    running.show(views)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map")
    for keyframe in running.node.mapper.keyframes:
        assert not keyframe.source.assumed
        np.testing.assert_allclose(keyframe.source.matrix, views[0].camera.matrix)


def test_stamps_repeated_or_a_little_back_are_dropped_and_counted(rig, views: list) -> None:
    running = rig()
    running.show(views)
    frames, keyframes = running.node.book.now.frames, len(running.node.mapper.keyframes)
    for back in (0, 1, SECOND // 2):
        running.send(image_message(views[0].image, views[-1].stamp - back))
    now = running.node.book.now
    assert (now.stale, now.frames) == (3, frames)
    assert not now.fault
    assert len(running.node.mapper.keyframes) == keyframes


def test_a_time_jump_keeps_a_live_map(rig, views: list) -> None:
    running = rig()
    running.show(views)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map")
    running.send(image_message(views[0].image, views[0].stamp - 100 * SECOND))
    assert running.node.book.now.stale == 1
    assert len(running.node.mapper.keyframes) >= 2


@pytest.mark.parametrize("settings", [{"on_time_jump": "reset"}, {"use_sim_time": True}], ids=["asked for", "played bag"])
def test_a_bag_that_begins_again_starts_a_new_map(rig, views: list, settings: dict) -> None:
    running = rig(**settings)
    running.show(views)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map")
    running.show(views[:1], shift=-100 * SECOND)
    running.until(lambda: running.node.book.now.keyframes == 0, "the map began anew")
    assert running.node.book.now.frames == 1
    running.show(views[1:], shift=-100 * SECOND)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a new map")


def test_without_the_base_s_transform_the_map_grows_and_tf_waits_for_it(rig, views: list) -> None:
    running = rig(base_frame="base_far")
    said: list[str] = []
    running.node._warn._say = said.append
    heard = running.listen(TFMessage, "/tf")
    running.show(views, calibrated=True)
    running.until(lambda: running.node.book.now.keyframes >= 2, "there is a map all the same")
    assert heard == []
    assert any("base_far" in line and CAMERA_FRAME in line for line in said)
    running.static_transform("base_far", CAMERA_FRAME, OPTICAL_IN_BODY)
    running.until(lambda: running.node.buffer.parent(CAMERA_FRAME) == "base_far", "the transform is known")
    running.show(views[-3:], shift=SECOND)
    running.until(lambda: heard, "TF is there now")


def test_a_fault_of_the_program_itself_does_not_end_the_node(rig, views: list, monkeypatch: pytest.MonkeyPatch) -> None:
    running = rig()
    with monkeypatch.context() as patch:
        patch.setattr(running.node.mapper, "add", lambda *_: 1 / 0)
        running.send(image_message(views[0].image, views[0].stamp))
        running.until(lambda: "ZeroDivisionError" in running.node.book.now.reason, "the fault is told")
    goes_on(running, views)


@pytest.mark.parametrize(
    ("name", "value"), [("image", "bad topic!"), ("camera_info", "/a//b"), ("camera_info", "{nobody}/info")], ids=lambda one: one
)
def test_a_topic_that_cannot_be_listened_to_leaves_it_inactive_and_is_told(rig, capfd, name: str, value: str) -> None:
    waiting = rig(activate=False)
    node, good = waiting.node, waiting.node.parameters.node.image
    assert node.set_parameters([Parameter(name, value=value)])[0].successful
    assert waiting.do(node.trigger_configure) == TransitionCallbackReturn.SUCCESS
    assert waiting.do(node.trigger_activate) == TransitionCallbackReturn.FAILURE
    assert waiting.call(GetState, "~/get_state").current_state.label == "inactive"
    assert good not in [subscription.topic_name for subscription in node.subscriptions]
    (line,) = [line for line in "".join(capfd.readouterr()).splitlines() if "cannot be activated" in line]
    assert f"'{value}'" in line
    assert "give 'image' and 'camera_info' names such as" in line
    assert waiting.do(node.trigger_cleanup) == TransitionCallbackReturn.SUCCESS
    assert node.set_parameters([Parameter("image", value=good), Parameter("camera_info", value="")])[-1].successful
    for step in (node.trigger_configure, node.trigger_activate):
        assert waiting.do(step) == TransitionCallbackReturn.SUCCESS
    waiting.until(waiting._images.get_subscription_count, "it listens")


def test_a_depth_topic_that_cannot_be_leaves_it_unconfigured_and_listening_to_nothing(rig, capfd) -> None:
    waiting = rig(activate=False)
    node = waiting.node
    assert all(
        one.successful
        for one in node.set_parameters([Parameter("scale.odom_topic", value="/wheels"), Parameter("scale.depth_topic", value="a b")])
    )
    assert waiting.do(node.trigger_configure) == TransitionCallbackReturn.FAILURE
    assert "/wheels" not in [subscription.topic_name for subscription in node.subscriptions]
    assert "a b" in "".join(capfd.readouterr())
    assert node.set_parameters([Parameter("scale.depth_topic", value="")])[0].successful
    for step in (node.trigger_configure, node.trigger_activate):
        assert waiting.do(step) == TransitionCallbackReturn.SUCCESS
    assert "/wheels" in [subscription.topic_name for subscription in node.subscriptions]


def test_clean_up_lets_the_map_and_the_model_go(rig, views: list) -> None:
    running = rig()
    running.show(views[:3])
    node = running.node
    held = weakref.ref(node.mapper), weakref.ref(node.mapper.estimator)
    for step in (node.trigger_deactivate, node.trigger_cleanup):
        assert running.do(step) == TransitionCallbackReturn.SUCCESS
    assert [one() for one in held] == [None, None]


def test_configure_again_after_clean_up(rig, views: list) -> None:
    running = rig()
    running.show(views[:2])
    node = running.node
    for step in (node.trigger_deactivate, node.trigger_cleanup, node.trigger_configure, node.trigger_activate):
        assert running.do(step) == TransitionCallbackReturn.SUCCESS
    assert node.book.now.frames == 0
    running.until(lambda: running._images.get_subscription_count(), "it listens again")
    assert node.set_parameters([Parameter("keyframes.max_rate", value=5.0)])[0].successful
    running.show(views)
    running.until(lambda: node.book.now.keyframes >= 2, "there is a map")
