"""Transforms of others, from /tf_static and, where they are needed, from /tf into the buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage

from dust3r_ros.errors import Dust3rError
from dust3r_ros.ros.conversion import from_time, matrix_from_transform
from dust3r_ros.ros.parameters import NodeConfig
from dust3r_ros.ros.transforms import TransformBuffer

STATIC_TF = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class TransformListener:
    """Listens from the start until it is destroyed. `moved`: told the parent and the stamp (ns) of every transform from /tf."""

    def __init__(
        self,
        node: Node,
        config: NodeConfig,
        buffer: TransformBuffer,
        moved: Callable[[str, int], None],
        warn: Callable[[str], None],
    ) -> None:
        self._node, self._own, self._buffer = node, (config.map_frame, config.odom_frame), buffer
        self._moved, self._warn = moved, warn
        self._subscriptions = [node.create_subscription(TFMessage, "/tf_static", self._on_static, STATIC_TF)]
        if not (config.publish_tf and config.publish_odom_tf):
            self._subscriptions.append(node.create_subscription(TFMessage, "/tf", self._on_moving, QoSProfile(depth=100)))

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_static(self, message: TFMessage) -> None:
        for item in message.transforms:
            self._remember(item, static=True)

    def _on_moving(self, message: TFMessage) -> None:
        for item in message.transforms:
            self._remember(item, static=False)

    def _remember(self, item: Any, static: bool) -> None:
        parent, child = item.header.frame_id.lstrip("/"), item.child_frame_id.lstrip("/")
        if (parent, child) == self._own:
            return
        try:
            pose = matrix_from_transform(item.transform)
        except Dust3rError as error:
            self._warn(f"transform '{parent}' -> '{child}' ignored: {error}")
            return
        if static:
            self._buffer.set_static(parent, child, pose)
        else:
            self._buffer.set_moving(parent, child, from_time(item.header.stamp), pose)
            self._moved(parent, from_time(item.header.stamp))
