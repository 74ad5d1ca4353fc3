"""Depth and confidence of one camera's keyframes, in that camera's own pixels."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from dust3r_ros.mapping import Keyframe, depth_image
from dust3r_ros.ros.conversion import camera_info_message, depth_message, to_header


class DepthTopics:
    """`where`: ~ or, of a rig's camera, ~/NAME."""

    def __init__(self, node: Node, where: str, qos: QoSProfile) -> None:
        self._node = node
        self.depth = node.create_publisher(Image, f"{where}/depth/image", qos)
        self.info = node.create_publisher(CameraInfo, f"{where}/depth/camera_info", qos)
        self.confidence = node.create_publisher(Image, f"{where}/confidence/image", qos)

    def destroy(self) -> None:
        for publisher in (self.depth, self.info, self.confidence):
            self._node.destroy_publisher(publisher)

    def publish(self, keyframe: Keyframe, camera_frame: str) -> None:
        """To those who listen."""
        header = to_header(keyframe.stamp, camera_frame)
        if self.info.get_subscription_count():
            self.info.publish(camera_info_message(keyframe.source, header))
        if self.depth.get_subscription_count() or self.confidence.get_subscription_count():
            depth, confidence = depth_image(keyframe)
            self.depth.publish(depth_message(depth, header, unknown=0.0))
            self.confidence.publish(depth_message(confidence, header))
