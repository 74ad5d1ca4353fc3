"""What makes the map metric, from ROS: wheel or visual-inertial odometry by topic or TF, a depth sensor's image, the robot's model.

Callbacks only put things down; `hand_over` gives them to the Mapper on the mapping thread, before it looks at an image.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from dust3r_ros.errors import Dust3rError
from dust3r_ros.io.messages import decode_depth
from dust3r_ros.mapping import Localiser, Mapper
from dust3r_ros.ros.conversion import from_time, matrix_from_pose
from dust3r_ros.ros.parameters import NodeConfig
from dust3r_ros.ros.transforms import TransformBuffer

Warn = Callable[[str], None]

FASTEST = 8_000_000  # ns between two transforms that are looked at: more often says no more
SENSOR = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)  # goes with any publisher


class MetricInputs:
    """Subscriptions to what is configured, as long as the node is."""

    def __init__(self, node: Node, config: NodeConfig, buffer: TransformBuffer, warn: Warn) -> None:
        self._node, self._config, self._buffer, self._warn = node, config, buffer, warn
        self._odometry: deque[Odometry] = deque(maxlen=2000)
        self._transforms: deque[int] = deque(maxlen=2000)
        self._depths: deque[Image] = deque(maxlen=30)
        self._subscriptions = []
        try:
            if config.scale.odom_topic:
                self._subscriptions.append(node.create_subscription(Odometry, config.scale.odom_topic, self._on_odometry, SENSOR))
            if config.scale.depth_topic:
                self._subscriptions.append(node.create_subscription(Image, config.scale.depth_topic, self._on_depth, SENSOR))
        except Exception:  # a topic that cannot be: the node stays unconfigured, and may be configured again
            self.destroy()
            raise

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_odometry(self, message: Odometry) -> None:
        self._odometry.append(message)

    def _on_depth(self, message: Image) -> None:
        self._depths.append(message)

    def moved(self, parent: str, stamp: int) -> None:
        """Somebody else's transform below `parent`, of this stamp (ns), is in the buffer now."""
        if self._config.publish_odom_tf or parent != self._config.odom_frame or self._config.scale.odom_topic:
            return
        if not self._transforms or not 0 <= stamp - self._transforms[-1] < FASTEST:
            self._transforms.append(stamp)

    def hand_over(self, mapper: Mapper | Localiser, camera_frame: str) -> None:
        """Everything that has come since; it waits while the camera's frame is not known. What cannot be used is said and left out."""
        if not camera_frame:
            return
        for job in self._jobs(mapper, camera_frame):
            try:
                job()
            except Dust3rError as error:
                self._warn(f"not used for the scale: {error}")

    def _jobs(self, mapper: Mapper | Localiser, camera_frame: str) -> Iterator[Callable[[], None]]:
        if self._config.base_frame and mapper.config.scale.camera_height > 0:
            yield lambda: self._tell_up(mapper, camera_frame)
        for message in _drained(self._odometry):
            yield lambda message=message: self._add_odometry(mapper, camera_frame, message)  # type: ignore[misc]
        for stamp in _drained(self._transforms):
            yield lambda stamp=stamp: mapper.add_odometry(  # type: ignore[misc]
                stamp, self._buffer.lookup(self._config.odom_frame, camera_frame, stamp)
            )
        for image in _drained(self._depths):
            yield lambda image=image: mapper.add_depth(from_time(image.header.stamp), decode_depth(image))  # type: ignore[misc]

    def _tell_up(self, mapper: Mapper | Localiser, camera_frame: str) -> None:
        mapper.set_up(self._buffer.lookup(self._config.base_frame, camera_frame)[2, :3])

    def _add_odometry(self, mapper: Mapper | Localiser, camera_frame: str, message: Odometry) -> None:
        child = message.child_frame_id.lstrip("/") or self._config.base_frame or camera_frame
        pose = matrix_from_pose(message.pose.pose) @ self._buffer.lookup(child, camera_frame)
        mapper.add_odometry(from_time(message.header.stamp), np.asarray(pose))


def _drained(queue: deque[Any]) -> Iterator[Any]:
    while queue:
        yield queue.popleft()
