"""Cameras by name, with extrinsics from /tf_static: one base, a metric map, and a status that names who is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from dust3r_ros_msgs.msg import Status
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from support.rig import Rig, image_message
from support.rig_walk import TWO, RigEstimator, rig_views
from support.truth import depth_error
from tf2_msgs.msg import TFMessage

from dust3r_ros.geometry.rotations import inverse_pose, pose_matrix
from dust3r_ros.mapping import Rig as CameraRig
from dust3r_ros.mapping import RigMapper
from dust3r_ros.ros.conversion import camera_info_message, depth_array, from_time, matrix_from_transform, to_header
from dust3r_ros.ros.node import Dust3rNode
from dust3r_ros.ros.placement import OPTICAL_IN_BODY

FRAMES = 26
SKEWS = {"front": 0, "left": 3_000_000, "right": -4_000_000}  # ns: the cameras are not quite in step
ROOT = Path(__file__).resolve().parents[2]
BASE_BODY = pose_matrix(np.eye(3), (0.2, 0.0, 0.4)) @ OPTICAL_IN_BODY
SETTINGS = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02, "base_frame": "base_link"}


class Cameras:
    """The rig's drivers, in the test's client."""

    def __init__(self, running: Rig, names: tuple[str, ...]) -> None:
        self._running = running
        publisher = running.publisher
        self.images = {name: publisher(Image, f"{running.space}/{name}/image_raw") for name in names}
        self.infos = {name: publisher(CameraInfo, f"{running.space}/{name}/camera_info") for name in names}
        every = [*self.images.values(), *self.infos.values()]
        running.until(lambda: all(one.get_subscription_count() for one in every), "the node listens to all cameras")

    def show(self, views: dict[str, Any]) -> None:
        """One moment; the cameras' stamps differ. Returns when the node has dealt with the set."""
        before = self._running._dealt_with()
        for name, view in views.items():
            stamp = view.stamp + SKEWS[name]
            self.infos[name].publish(camera_info_message(view.camera, to_header(stamp, f"{name}_optical")))
        for name, view in views.items():
            self.images[name].publish(image_message(view.image, view.stamp + SKEWS[name], f"{name}_optical"))
        self._running.until(lambda: self._running._dealt_with() != before, "the set is dealt with")


@pytest.fixture
def three(rig) -> Rig:
    """A front and a left camera, and a right one that is nowhere on TF."""
    rig_views(TWO, FRAMES)  # not while the node waits for images
    running = rig(cameras=["front", "left", "right"], **{"rig.image": "{camera}/image_raw"}, **SETTINGS)
    for name, pose in TWO.items():
        running.static_transform("base_link", f"{name}_optical", BASE_BODY @ pose)
        running.until(lambda name=name: running.node.buffer.parent(f"{name}_optical"), "the static transform is known")
    return running


def moment(views: dict[str, list[Any]], at: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: views[name if name in views else "left"][at] for name in names}


def test_cameras_by_name_move_one_base_and_who_is_missing_is_named(three: Rig) -> None:
    views, node = rig_views(TWO, FRAMES), three.node
    node.mapper = RigMapper(CameraRig({}), node.mapper.config, RigEstimator(views, size=160, noise=0.02), background=True)
    cameras = Cameras(three, ("front", "left", "right"))
    heard, statuses = three.listen(TFMessage, "/tf"), three.listen(Status, "~/status")
    diagnostics, depths = three.listen(DiagnosticArray, "/diagnostics"), three.listen(Image, "~/left/depth/image")
    confidences = three.listen(Image, "~/left/confidence/image")
    for at in range(FRAMES - 4):
        cameras.show(moment(views, at, ("front", "left", "right")))
    for at in range(FRAMES - 4, FRAMES):  # the front one stops, and so does the one that nobody could use
        cameras.show(moment(views, at, ("left",)))
    three.until(lambda: statuses[-1].frames == FRAMES, "all sets are handled")
    assert statuses[-1].scale_source == "rig"
    assert statuses[-1].state == Status.TRACKING

    # One base, in the frame that it began in, in metres once the cameras' distances had been measured.
    last = views["left"][FRAMES - 1].stamp + SKEWS["left"]
    newest = three.until(lambda: [m for m in heard if from_time(m.transforms[0].header.stamp) == last], "the last set's transforms")[-1]
    assert [item.child_frame_id for item in newest.transforms] == ["odom", "base_link"]
    map_odom, odom_base = (matrix_from_transform(item.transform) for item in newest.transforms)
    true = [views["front"][at].pose @ inverse_pose(BASE_BODY) for at in (0, FRAMES - 1)]
    np.testing.assert_allclose((map_odom @ odom_base)[:3, 3], (inverse_pose(true[0]) @ true[1])[:3, 3], atol=0.12)

    said = [{pair.key: pair.value for pair in item.values} for array in diagnostics for item in array.status]
    assert any(one.get("camera front", "").startswith("followed, ") and one["camera left"].startswith("followed, ") for one in said)
    missing = "no transform from 'base_link' to 'right_optical' on /tf_static"
    assert any(one.get("camera right", "").startswith(missing) for one in said)
    assert any(f"camera right: {missing}" in status.reason for status in statuses)

    assert {message.header.frame_id for message in depths} == {"left_optical"}
    found = {from_time(message.header.stamp): np.nan_to_num(depth_array(message)) for message in depths}
    sure = {from_time(message.header.stamp): depth_array(message) for message in confidences}
    error, covered = depth_error(found, sure, {view.stamp + SKEWS["left"]: view.depth for view in views["left"]})
    assert error < 0.05
    assert covered > 0.5


def test_a_camera_s_own_topics_take_the_place_of_the_template_and_the_example_is_taken(ros: None) -> None:  # noqa: ARG001
    example = yaml.safe_load((ROOT / "config" / "rig.yaml").read_text())["/**"]["ros__parameters"]
    given = {**{name: value for name, value in example.items() if name != "rig"}, **{f"rig.{k}": v for k, v in example["rig"].items()}}
    own = {"rig.left.image": "/side/color", "rig.left.frame": "side_optical"}
    node = Dust3rNode(parameter_overrides=[Parameter(name, value=value) for name, value in {**given, **own}.items()])
    try:
        assert node.parameters.cameras_inputs() == {
            "front": ("/front/image_raw", "", ""),
            "left": ("/side/color", "", "side_optical"),
            "right": ("/right/image_raw", "", ""),
        }
        assert node.parameters.node.base_frame == "base_link"
    finally:
        node.destroy_node()


def test_a_rig_is_not_localised_in_a_map_and_says_so(rig, capfd) -> None:
    waiting = rig(activate=False, cameras=["front", "left"], mode="localisation")
    assert waiting.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "mode localisation takes one camera" in "".join(capfd.readouterr())


ONE_CAMERA = {"rig.image": "{camera}/image_raw", "rig.front.frame": "front_optical"}


@pytest.mark.parametrize(
    ("name", "value", "says"), [("rig.front.image", "/elsewhere", "configured"), ("mode", "localisation", "one camera")]
)
def test_what_a_running_rig_cannot_become_is_refused(rig, name: str, value: str, says: str) -> None:
    running = rig(cameras=["front"], **ONE_CAMERA)
    before = running.node.get_parameter(name).value
    message = Parameter(name, value=value).to_parameter_msg()
    result = running.call(SetParameters, "~/set_parameters", parameters=[message]).results[0]
    assert not result.successful
    assert says in result.reason
    assert running.node.get_parameter(name).value == before


def test_a_rigs_camera_may_move_to_another_topic_once_the_node_is_cleaned_up(rig) -> None:
    running = rig(cameras=["front"], **ONE_CAMERA)
    node = running.node
    for step in (node.trigger_deactivate, node.trigger_cleanup):
        assert running.do(step) == TransitionCallbackReturn.SUCCESS
    assert node.set_parameters([Parameter("rig.front.image", value="/elsewhere")])[0].successful
    assert running.do(node.trigger_configure) == TransitionCallbackReturn.SUCCESS
    assert node.parameters.cameras_inputs() == {"front": ("/elsewhere", "", "front_optical")}


def test_how_long_a_rigs_images_wait_for_their_camera_info_may_change_while_it_runs(rig, views: list) -> None:
    running = rig(cameras=["front"], camera_info_wait=60.0, **{"rig.image": "{camera}/image_raw"})  # longer than the test's patience
    cameras = Cameras(running, ("front",))
    assert running.node.set_parameters([Parameter("camera_info_wait", value=0.0)])[0].successful
    cameras.images["front"].publish(image_message(views[0].image, views[0].stamp, "front_optical"))
    running.until(lambda: running.node.book.now.frames == 1, "the image is handled")


def test_a_rig_takes_rectified_images_by_their_topics_name(rig, views: list) -> None:
    running = rig(cameras=["front"], camera_info_wait=5.0, **{"rig.image": "{camera}/image_rect"})
    image = running.publisher(Image, f"{running.space}/front/image_rect")
    info = running.publisher(CameraInfo, f"{running.space}/front/camera_info")
    running.until(lambda: image.get_subscription_count() and info.get_subscription_count(), "the node listens")
    bent = replace(views[0].camera, model="plumb_bob", distortion=(0.3, 0.1, 0.0, 0.0))
    info.publish(camera_info_message(bent, to_header(views[0].stamp, "front_optical")))
    image.publish(image_message(views[0].image, views[0].stamp, "front_optical"))
    running.until(lambda: running.node.book.now.frames == 1, "the image is handled")
    assert running.node.rig._infos["front"].at(views[0].stamp, 0.0) == views[0].camera
