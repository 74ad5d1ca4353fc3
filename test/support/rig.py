"""A node and a client in one process, talking over DDS, with an executor of their own."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from dust3r_ros.ros.conversion import as_data, camera_info_message, to_header, transform_message
from dust3r_ros.ros.node import Dust3rNode

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CAMERA_FRAME = "camera_optical"
PATIENCE = 30.0  # seconds; nothing here takes a tenth of it

Result = TypeVar("Result")

_numbers = itertools.count()


def image_message(image: Any, stamp: int, frame_id: str = CAMERA_FRAME, **changes: Any) -> Image:
    """rgb8 from [H, W, 3]; `changes` spoil it."""
    height, width = image.shape[:2]
    message = Image(header=to_header(stamp, frame_id), height=height, width=width, encoding="rgb8", step=3 * width, data=as_data(image))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


class Rig:
    """`node` is the one under test; `client` belongs to the test."""

    def __init__(self, parameters: dict[str, Any], activate: bool = True) -> None:
        self.space = f"/rig{next(_numbers)}"
        given = {
            "image": f"{self.space}/camera/image_raw",
            "reliability": "reliable",
            "estimator.model": "auto" if "estimator.weights" in parameters else "flow",
            "estimator.size": 160,
            "publish.map_period": 0.25,
            "publish.status_period": 0.25,
            "publish.map_points_rate": 1e9,
            **parameters,
        }
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        self.node = Dust3rNode(namespace=self.space, parameter_overrides=overrides)
        self.name = f"{self.space}/dust3r"
        self.client = rclpy.create_node("client", namespace=self.space)
        compressed = given.get("image_transport") == "compressed"
        kind, topic = (CompressedImage, f"{given['image']}/compressed") if compressed else (Image, given["image"])
        self._images = self.client.create_publisher(kind, topic, RELIABLE)
        self._infos = self.client.create_publisher(CameraInfo, f"{self.space}/camera/camera_info", RELIABLE)
        self._static = self.client.create_publisher(TFMessage, "/tf_static", LATCHED)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.client)
        self._stopping = False
        if activate:
            assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
            assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        if activate and "cameras" not in parameters:
            self.until(lambda: self._images.get_subscription_count() and self._infos.get_subscription_count(), "the node listens")

    def _spin(self) -> None:
        while not self._stopping:
            self.executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        self.node.destroy_node()
        self.client.destroy_node()

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something that must come."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert self._thread.is_alive(), f"nobody spins any more, while waiting until {what}"
            assert time.monotonic() < deadline, f"waited in vain until {what}; health: {self.node.book.now}"
            time.sleep(0.01)
        return found

    def do(self, job: Callable[[], Result]) -> Result:
        """Have `job` done by the thread that spins, between two callbacks: what is destroyed there nobody waits on."""
        done: Future[Result] = Future()

        def task() -> None:
            try:
                done.set_result(job())
            except BaseException as error:  # belongs to the test, and would end the spinning
                done.set_exception(error)

        self.executor.create_task(task)
        return done.result(PATIENCE)

    def publisher(self, kind: type, topic: str, qos: QoSProfile = RELIABLE) -> Any:
        """Of the client."""
        return self.do(lambda: self.client.create_publisher(kind, topic, qos))

    # ---- inputs ----------------------------------------------------------------------------------------------------------------------

    def send(self, message: Any, info: CameraInfo | None = None) -> None:
        """Publish an image and wait until the node has dealt with it, one way or the other, and the map with what it asked for."""
        before = self._dealt_with()
        if info is not None:
            self._infos.publish(info)
        self._images.publish(message)
        self.until(lambda: self._dealt_with() != before and self.node.is_idle(), "the image is dealt with")

    def show(self, views: list[Any], calibrated: bool = True, shift: int = 0) -> None:
        """Send simulated views one after the other, their stamps shifted by so many ns."""
        for view in views:
            stamp = view.stamp + shift
            info = camera_info_message(view.camera, to_header(stamp, CAMERA_FRAME)) if calibrated else None
            self.send(image_message(view.image, stamp), info)

    def static_transform(self, parent: str, child: str, pose: Any) -> None:
        self._static.publish(TFMessage(transforms=[transform_message(pose, to_header(0, parent), child)]))

    def _dealt_with(self) -> int:
        now = self.node.book.now
        return now.frames + now.unusable + now.stale

    # ---- outputs ---------------------------------------------------------------------------------------------------------------------

    def listen(self, kind: type, topic: str, qos: QoSProfile = RELIABLE) -> list[Any]:
        """The messages of a topic from now on; `~/x` is the node's own."""
        heard: list[Any] = []
        full = topic.replace("~", self.name, 1)
        self.do(lambda: self.client.create_subscription(kind, full, heard.append, qos))
        if topic.startswith("~") or topic == "/tf":
            self.until(lambda: self.node.count_subscribers(full), f"{full} has a listener")
            time.sleep(0.3)  # the graph knows of it; the two ends have yet to be matched
        return heard

    def call(self, kind: type, service: str, **request: Any) -> Any:
        client = self.do(lambda: self.client.create_client(kind, service.replace("~", self.name, 1)))
        assert client.wait_for_service(PATIENCE)
        future = client.call_async(kind.Request(**request))
        self.until(future.done, f"{service} has answered")
        return future.result()
