"""What makes a map from a bag metric: the robot's odometry by topic or /tf, a depth sensor's images, the camera's place on the base.

The messages go to the Mapper in the order of the recording, ahead of the image that they belong to, so that a run is the same every time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from dust3r_ros.errors import Dust3rError
from dust3r_ros.io.bags import BagError, BagFrames
from dust3r_ros.io.messages import decode_depth, matrix_from_pose, matrix_from_transform
from dust3r_ros.io.robot_config import RobotConfig
from dust3r_ros.io.transforms import TransformBuffer
from dust3r_ros.mapping import Localiser, Mapper

log = logging.getLogger(__name__)

ODOMETRY, IMAGE, TRANSFORMS = "nav_msgs/msg/Odometry", "sensor_msgs/msg/Image", "tf2_msgs/msg/TFMessage"
AHEAD = 100_000_000  # ns: what was recorded so much after an image may still belong to it
FASTEST = 8_000_000  # ns between two transforms that are looked at: more often says no more


class BagMetrics:
    """The metric readings of a bag. Raises BagError where a topic that was named is not there or of another type."""

    def __init__(self, bag: BagFrames, config: RobotConfig) -> None:
        self._bag, self._config = bag, config
        self._buffer = TransformBuffer()
        self._said: set[str] = set()
        self._last_transform: int | None = None
        self._told_up = False
        known = bag.topics()
        self._odometry = self._named("scale.odom_topic", config.scale.odom_topic, ODOMETRY, known)
        self._depth = self._named("scale.depth_topic", config.scale.depth_topic, IMAGE, known)
        self._moving = "/tf" if not self._odometry and not config.publish_odom_tf and "/tf" in known else ""
        if not self._odometry and not config.publish_odom_tf and not self._moving:
            raise BagError(f"bag {bag.path} has no /tf with '{config.odom_frame}' -> base: name a topic in scale.odom_topic")
        frame, self._delay = self._first_image()
        self._camera_frame = config.camera_frame or frame
        if "/tf_static" in known:
            for _, _, message in bag.messages({"/tf_static"}):
                self._remember(message, static=True)
        wanted = {name for name in (self._odometry, self._depth, self._moving) if name}
        self._waiting: Iterator[tuple[str, int, Any]] = bag.messages(wanted) if wanted else iter(())
        self._next: tuple[str, int, Any] | None = next(self._waiting, None)

    def hand_over(self, mapper: Mapper | Localiser, stamp: int) -> None:
        """Give the Mapper all that was recorded until just after the image of `stamp` (ns). What cannot be used is said and left out."""
        if not self._told_up and self._config.base_frame and mapper.config.scale.camera_height > 0:
            self._told_up = True
            self._try(partial(self._tell_up, mapper))
        while self._next is not None and self._next[1] <= stamp + self._delay + AHEAD:
            reading, self._next = self._next, next(self._waiting, None)
            self._try(partial(self._give, mapper, *reading))

    def _tell_up(self, mapper: Mapper | Localiser) -> None:
        mapper.set_up(self._buffer.lookup(self._config.base_frame, self._camera_frame)[2, :3])

    def _give(self, mapper: Mapper | Localiser, topic: str, recorded: int, message: Any) -> None:
        if topic == self._moving:
            for moved in self._remember(message, static=False):
                mapper.add_odometry(moved, self._buffer.lookup(self._config.odom_frame, self._camera_frame, moved))
        elif topic == self._odometry:
            child = message.child_frame_id.lstrip("/") or self._config.base_frame or self._camera_frame
            pose = matrix_from_pose(message.pose.pose) @ self._buffer.lookup(child, self._camera_frame)
            mapper.add_odometry(_stamp(message.header) or recorded, pose)
        else:
            mapper.add_depth(_stamp(message.header) or recorded, decode_depth(message))

    def _remember(self, message: Any, static: bool) -> list[int]:
        """Transforms into the buffer; the stamps (ns) at which the odometry moved, not more often than is worth looking at."""
        moved = []
        for item in message.transforms:
            parent, child = item.header.frame_id.lstrip("/"), item.child_frame_id.lstrip("/")
            stamp = _stamp(item.header)
            try:
                pose = matrix_from_transform(item.transform)
            except Dust3rError as error:
                self._say(f"transform '{parent}' -> '{child}' left out: {error}")
                continue
            if static:
                self._buffer.set_static(parent, child, pose)
                continue
            self._buffer.set_moving(parent, child, stamp, pose)
            last = self._last_transform
            if parent == self._config.odom_frame and (last is None or not 0 <= stamp - last < FASTEST):
                self._last_transform = stamp
                moved.append(stamp)
        return moved

    def _try(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Dust3rError as error:
            self._say(f"not used for the scale: {error}")

    def _say(self, what: str) -> None:
        if what not in self._said:
            log.warning("%s: %s", self._bag.path, what)
            self._said.add(what)

    def _named(self, setting: str, topic: str, kind: str, known: dict[str, str]) -> str:
        if topic and known.get(topic) != kind:
            there = ", ".join(sorted(name for name, its in known.items() if its == kind)) or "none"
            what = "is not in it" if topic not in known else f"is {known[topic]}, not {kind}"
            raise BagError(f"bag {self._bag.path}: '{topic}' of {setting} {what}; of that type it has {there}")
        return topic

    def _first_image(self) -> tuple[str, int]:
        """Its frame, and how long after its stamp it was recorded (ns): so all are put in order, whatever their own clocks say."""
        for _, recorded, message in self._bag.messages({self._bag.image_topic}):
            stamp = _stamp(message.header)
            return str(message.header.frame_id).lstrip("/"), recorded - stamp if stamp else 0
        return "", 0


def _stamp(header: Any) -> int:
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
