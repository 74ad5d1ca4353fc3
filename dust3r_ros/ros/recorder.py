"""Records what the node publishes into one file: python -m dust3r_ros.ros.recorder OUT.npz

Ends on SIGINT or SIGTERM, or when nothing but status has come for a while; then the file is written. Read it with RecordedRun.load.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from dust3r_ros_msgs.msg import KeyframeGraph, Status
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from dust3r_ros.errors import Dust3rError
from dust3r_ros.io.messages import camera_from_info
from dust3r_ros.ros.conversion import cloud_from_message, depth_array, from_time, matrix_from_pose, matrix_from_transform
from dust3r_ros.ros.recording import RecordedRun

EVERY = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Recorder(Node):
    """Listens to all that a node called `namespace` says."""

    def __init__(self, namespace: str) -> None:
        super().__init__("dust3r_recorder")
        self.run = RecordedRun()
        self.last_message: float | None = None  # time.monotonic(), of anything but status
        space = "/" + namespace.strip("/")
        listen = self.create_subscription
        self._subscriptions_ = [
            listen(TFMessage, "/tf", self._on_tf, EVERY),
            listen(Odometry, f"{space}/odometry", self._on_odometry, EVERY),
            listen(Image, f"{space}/depth/image", self._on_depth, EVERY),
            listen(CameraInfo, f"{space}/depth/camera_info", self._on_camera, EVERY),
            listen(Image, f"{space}/confidence/image", self._on_confidence, EVERY),
            listen(PointCloud2, f"{space}/cloud", self._on_cloud, EVERY),
            listen(PointCloud2, f"{space}/map", self._on_map, LATCHED),
            listen(PathMessage, f"{space}/path", self._on_path, LATCHED),
            listen(KeyframeGraph, f"{space}/keyframes", self._on_keyframes, LATCHED),
            listen(Status, f"{space}/status", self._on_status, EVERY),
        ]

    def _heard(self) -> None:
        self.last_message = time.monotonic()

    def _on_tf(self, message: TFMessage) -> None:
        self._heard()
        for item in message.transforms:
            pose = matrix_from_transform(item.transform)
            self.run.transforms.append((from_time(item.header.stamp), item.header.frame_id, item.child_frame_id, pose))

    def _on_odometry(self, message: Odometry) -> None:
        self._heard()
        covariance = np.array(message.pose.covariance).reshape(6, 6)
        self.run.odometry.append((from_time(message.header.stamp), matrix_from_pose(message.pose.pose), covariance))

    def _on_depth(self, message: Image) -> None:
        self._heard()
        self.run.depths[from_time(message.header.stamp)] = np.nan_to_num(depth_array(message), nan=0.0)

    def _on_confidence(self, message: Image) -> None:
        self._heard()
        self.run.confidences[from_time(message.header.stamp)] = depth_array(message)

    def _on_camera(self, message: CameraInfo) -> None:
        self._heard()
        camera = camera_from_info(message)
        if camera is not None:
            self.run.cameras[from_time(message.header.stamp)] = camera

    def _on_cloud(self, _: PointCloud2) -> None:
        self._heard()
        self.run.clouds += 1

    def _on_map(self, message: PointCloud2) -> None:
        self._heard()
        self.run.map, self.run.map_frame = cloud_from_message(message), message.header.frame_id

    def _on_path(self, message: PathMessage) -> None:
        self._heard()
        self.run.path = [(from_time(pose.header.stamp), matrix_from_pose(pose.pose)) for pose in message.poses]

    def _on_keyframes(self, message: KeyframeGraph) -> None:
        self._heard()
        self.run.keyframes = [(item.index, from_time(item.stamp), matrix_from_pose(item.pose)) for item in message.keyframes]
        self.run.edges = [(int(i), int(j)) for i, j in zip(message.edges_i, message.edges_j, strict=True)]

    def _on_status(self, message: Status) -> None:
        self.run.statuses.append(_fields(message))


def _fields(message: Status) -> dict[str, Any]:
    """As JSON takes it."""
    plain: dict[str, Any] = {"stamp": from_time(message.header.stamp)}
    for name in message.get_fields_and_field_types():
        value = getattr(message, name)
        if name == "stage_seconds":
            plain["seconds"] = dict(zip(message.stage_names, (float(spent) for spent in value), strict=True))
        elif name not in ("header", "stage_names"):
            plain[name] = value
    return plain


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dust3r_ros.ros.recorder", description="Record what a dust3r node publishes.")
    parser.add_argument("output", type=Path, help="file to write, .npz")
    parser.add_argument("--namespace", default="/dust3r", help="the node's full name (default /dust3r)")
    parser.add_argument("--idle", type=float, default=0.0, help="end after so many seconds without a message; 0: on a signal only")
    given, ros_args = parser.parse_known_args(args)
    stops: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stops.append(number))
    rclpy.init(args=[sys.argv[0], *ros_args], signal_handler_options=SignalHandlerOptions.NO)
    recorder = Recorder(given.namespace)
    try:
        print(f"recording {given.namespace} into {given.output}", flush=True)
        while not stops:
            rclpy.spin_once(recorder, timeout_sec=0.2)
            if given.idle and recorder.last_message is not None and time.monotonic() - recorder.last_message > given.idle:
                break
        recorder.run.save(given.output)
        print(f"{len(recorder.run.depths)} depth images, {len(recorder.run.path)} poses written to {given.output}", flush=True)
    except (Dust3rError, OSError) as error:
        print(f"recorder: {error}", file=sys.stderr)
        return 1
    finally:
        recorder.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
