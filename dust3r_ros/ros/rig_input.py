"""A rig's images, CameraInfos and extrinsics, from ROS to sets of frames. A camera that stops or is not on TF stops no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dust3r_ros.errors import Dust3rError
from dust3r_ros.mapping import Frame, FrameSet, RigMapper
from dust3r_ros.mapping.rigs.frame_sets import MomentSet, SetCollector
from dust3r_ros.mapping.rigs.rig import Pose
from dust3r_ros.ros.conversion import from_time
from dust3r_ros.ros.errors import RosError, TransformError
from dust3r_ros.ros.image_topics import topics
from dust3r_ros.ros.intake import CameraInfos, Intake, TimeJumpError
from dust3r_ros.ros.parameters import CameraInput, Parameters
from dust3r_ros.ros.transforms import TransformBuffer
from dust3r_ros.ros.watchdog import Finding, ImageWatchdog

Warn = Callable[[str], None]
Messages = MomentSet[Any]  # image messages of one moment, by camera


class RigInput:
    """In place of one camera's Intake: `frame` makes a FrameSet, on the worker's thread."""

    def __init__(self, node: Node, parameters: Parameters, inputs: Mapping[str, CameraInput], buffer: TransformBuffer, warn: Warn) -> None:
        self._node, self._parameters, self._inputs, self._buffer, self._warn = node, parameters, dict(inputs), buffer, warn
        config = self._config = parameters.node
        compressed = config.image_transport == "compressed"
        self._topics = {name: topics(one.image, one.camera_info, compressed) for name, one in inputs.items()}
        self._infos = {name: CameraInfos(self._said_by(name)) for name in inputs}
        self._intakes = {name: Intake(self._infos[name], self._said_by(name), partial(self._info_wait, name)) for name in inputs}
        self._collector: SetCollector[Any] = SetCollector(tuple(inputs), round(config.rig.slop * 1e9), round(config.rig.timeout * 1e9))
        self._lock = threading.Lock()  # of the collector
        self._last_put = time.monotonic()
        self._frames = {name: one.frame for name, one in inputs.items() if one.frame}
        self._poses: dict[str, Pose] = {}  # of the cameras that are on TF: camera to body
        self._body = config.base_frame
        self.problems: dict[str, str] = {}  # by camera, why it is left out now
        self._subscriptions: list[Any] = []
        self._arrivals: dict[str, float] = {}
        self._watchdogs: dict[str, ImageWatchdog] = {}

    # ---- from the topics ---------------------------------------------------------------------------------------------------------------

    def listen(self, qos: QoSProfile, take: Callable[[Messages], None]) -> str:
        """Subscribe; `take` is given each set, on the executor's thread. The topics in words."""
        kind = CompressedImage if self._config.image_transport == "compressed" else Image
        info_qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        for name, (image, info) in self._topics.items():
            images = self._node.create_subscription(kind, image, partial(self._put, name, take), qos)
            self._subscriptions.append(images)
            self._infos[name].of_images(images.topic_name)
            self._subscriptions.append(self._node.create_subscription(CameraInfo, info, self._infos[name].put, info_qos))
            self._watchdogs[name] = ImageWatchdog(self._node, images.topic_name, self._config.image_transport, qos, self._said_by(name))
        return ", ".join(f"{name} ({image})" for name, (image, _) in self._topics.items())

    def stop(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions, self._watchdogs = [], {}
        with self._lock:
            self._collector.restart()

    def _put(self, name: str, take: Callable[[Messages], None], message: Any) -> None:
        self._arrivals[name] = self._last_put = time.monotonic()
        with self._lock:
            complete = self._collector.put(name, from_time(message.header.stamp), message)
        for one in complete:
            take(one)

    def flush(self, take: Callable[[Messages], None]) -> None:
        """Now and then: what waits for a camera goes without it when nothing has come for longer than it may wait."""
        if time.monotonic() - self._last_put > self._config.rig.timeout:
            with self._lock:
                waiting = self._collector.flush()
            for one in waiting:
                take(one)

    def look(self, timeout: float) -> Finding | None:
        """What the watchdogs say: of the first camera from which nothing has come for `timeout` seconds."""
        found = [(name, dog.look(self._arrivals.get(name), timeout)) for name, dog in self._watchdogs.items()]
        return next((Finding(one.cause, f"camera {name}: {one.text}") for name, one in found if one is not None), None)

    # ---- on the worker's thread --------------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Any stamp may come next."""
        for intake in self._intakes.values():
            intake.restart()

    def frame(self, messages: Messages) -> FrameSet:
        """What can be used of a set. Raises TimeJumpError as an Intake does, and RosError if nothing can be used."""
        frames: dict[str, Frame] = {}
        for name, message in messages.items.items():
            self.problems.pop(name, None)
            try:
                self._locate(name, message)
                frames[name] = self._intakes[name].frame(message)
            except TimeJumpError:
                raise
            except Dust3rError as error:
                self.problems[name] = f"camera {name}: {error}"
                self._warn(f"left out: {self.problems[name]}")
        if not frames:
            raise RosError("; ".join(self.problems.values()) or "a set without images")
        return FrameSet(messages.stamp, frames)

    def mount_on(self, mapper: RigMapper) -> None:
        """Tell a mapper, which may be new, where the cameras are."""
        for name, pose in self._poses.items():
            if name not in mapper.rig:
                mapper.mount(name, pose)

    def frame_of(self, name: str) -> str:
        """A camera's optical frame; of none, that of the first camera that is on TF."""
        return self._frames.get(name or next(iter(self._poses), ""), "camera")

    def states(self, agreeing: Mapping[str, float]) -> dict[str, str]:
        """By camera, one line for the diagnostics. `agreeing`: share of its points that agree with the pose."""
        absent = set(self._collector.absent())

        def state(name: str) -> str:
            if name in self.problems:
                return self.problems[name].removeprefix(f"camera {name}: ")
            if name in absent or name not in self._arrivals:
                return f"no images on {self._topics[name][0]}"
            return f"followed, {100 * agreeing[name]:.0f} % of its points agree" if name in agreeing else "not followed"

        return {name: state(name) for name in self._inputs}

    def _locate(self, name: str, message: Any) -> None:
        """Where the camera is on the body. Raises TransformError, which names what is missing."""
        if name in self._poses:
            return
        self._frames.setdefault(name, message.header.frame_id.lstrip("/"))
        own = self._frames[name]
        if not own:
            del self._frames[name]
            raise TransformError(f"its images have no frame_id: set rig.{name}.frame to its optical frame")
        if not self._body:  # without a base the first camera is the body
            self._body = own
        self._poses[name] = self._buffer.lookup(self._body, own)

    def _info_wait(self, name: str) -> float:
        return self._parameters.node.camera_info_wait if self._node.count_publishers(self._topics[name][1]) else 0.0

    def _said_by(self, name: str) -> Warn:
        return lambda text: self._warn(f"camera {name}: {text}")
