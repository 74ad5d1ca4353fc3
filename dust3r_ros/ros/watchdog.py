"""Says why no image comes: which topic, and whether nobody publishes, QoS or type do not fit, the clock stands, or images get lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

IMAGE_TYPES = {"raw": "sensor_msgs/msg/Image", "compressed": "sensor_msgs/msg/CompressedImage"}
REPEAT_AFTER = 60.0  # seconds until an unchanged cause is told again


class Cause(Enum):
    NO_PUBLISHER = "no publisher"
    WRONG_TYPE = "wrong type"
    INCOMPATIBLE_QOS = "incompatible QoS"
    CLOCK_STANDS = "clock does not run"
    NOTHING_ARRIVES = "nothing arrives"


@dataclass(frozen=True)
class Finding:
    cause: Cause
    text: str  # one line: the topic, the cause, the remedy


class ImageWatchdog:
    """Looked at now and then by the node; a steady clock of its own, because ROS's may be the one that stands."""

    def __init__(self, node: Node, topic: str, transport: str, qos: QoSProfile, say: Callable[[str], None]) -> None:
        self._node, self._topic, self._transport, self._qos, self._say = node, topic, transport, qos, say
        self._clock_seen = (node.get_clock().now().nanoseconds, time.monotonic())
        self._told: tuple[Cause, float] | None = None
        self._since = time.monotonic()
        self.finding: Finding | None = None

    def look(self, last_arrival: float | None, timeout: float) -> Finding | None:
        """`last_arrival`: time.monotonic() of the newest image. The finding if none has come for `timeout` seconds (0: never)."""
        now = time.monotonic()
        ros_now = self._node.get_clock().now().nanoseconds
        if ros_now != self._clock_seen[0]:
            self._clock_seen = (ros_now, now)
        if not timeout or now - max(self._since, last_arrival or 0.0) < timeout:
            self.finding = self._told = None
            return None
        self.finding = self.diagnose(timeout)
        if self._told is None or self._told[0] is not self.finding.cause or now - self._told[1] > REPEAT_AFTER:
            self._told = (self.finding.cause, now)
            self._say(f"no image for {timeout:g} s on {self._topic}: {self.finding.text}")
        return self.finding

    def diagnose(self, clock_patience: float) -> Finding:
        """The cause as the ROS graph shows it now."""
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        clock = self._clock_complaint(clock_patience)
        if not publishers:
            return Finding(Cause.NO_PUBLISHER, f"nobody publishes it; {self._image_topics()}" + (f"; and {clock}" if clock else ""))
        wanted = IMAGE_TYPES[self._transport]
        types = sorted({info.topic_type for info in publishers})
        if wanted not in types:
            return Finding(Cause.WRONG_TYPE, f"it carries {', '.join(types)}, not {wanted}: {self._type_remedy(types)}")
        fitting = [info for info in publishers if info.topic_type == wanted]
        problems = [qos_check_compatible(info.qos_profile, self._qos) for info in fitting]
        if all(fit == QoSCompatibility.ERROR for fit, _ in problems):
            reason = problems[0][1].strip().rstrip(";").replace("\n", " ")
            return Finding(
                Cause.INCOMPATIBLE_QOS,
                f"its publisher's QoS does not fit ({reason}): set reliability to best_effort, or make the publisher reliable",
            )
        if clock:
            return Finding(Cause.CLOCK_STANDS, clock)
        return Finding(
            Cause.NOTHING_ARRIVES,
            "it has a publisher that fits, which sends nothing or whose large images get lost: see 'ros2 topic hz'; with Fast DDS set "
            "FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA for both sides",
        )

    def _clock_complaint(self, patience: float) -> str | None:
        if not self._node.get_parameter("use_sim_time").value:
            return None
        if not self._node.count_publishers("/clock"):
            return "use_sim_time is true and nobody publishes /clock: play the bag with --clock, or set use_sim_time to false"
        if time.monotonic() - self._clock_seen[1] >= patience:
            return "use_sim_time is true and /clock does not run: is the bag paused?"
        return None

    def _image_topics(self) -> str:
        wanted = set(IMAGE_TYPES.values())
        ours = f"{self._node.get_fully_qualified_name()}/"
        found = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if wanted & set(types) and self._node.count_publishers(name) and not name.startswith(ours)
        ]
        return (
            f"topics with images: {', '.join(sorted(found))}"
            if found
            else "no other topic carries images either: is the camera's driver up?"
        )

    def _type_remedy(self, types: list[str]) -> str:
        for transport, name in IMAGE_TYPES.items():
            if name in types:
                return f"set image_transport to {transport}"
        return "give the topic of the images"
