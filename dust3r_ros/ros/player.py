"""Plays a rosbag2's cameras over ROS, stamps as they were: python -m dust3r_ros.ros.player BAG

For where 'ros2 bag play' is not installed. The messages' bytes go out as they stand in the bag.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dust3r_ros.errors import Dust3rError
from dust3r_ros.ros.errors import RosError

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
OTHERS = ("sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage")
SETTLE = 0.5  # seconds: we know the listener, it may not know us yet, and best-effort images would be lost
CLOCK_PERIOD = 0.02  # seconds between two /clock messages


@dataclass(frozen=True)
class Recorded:
    topic: str
    stamp: int  # ns, when it was recorded
    data: bytes  # serialised


class Bag:
    """The topics of a bag that have to do with cameras."""

    def __init__(self, path: Path) -> None:
        from rosbags.highlevel import AnyReader

        if not path.exists():
            raise RosError(f"there is no bag {path}: give the folder that holds metadata.yaml, or the .mcap or .db3 file")
        try:
            self._reader = AnyReader([path])
            self._reader.open()
        except Exception as error:  # whatever is wrong with the files
            raise RosError(f"{path} cannot be read as a bag: {' '.join(str(error).split())}") from error
        self._path = path
        wanted = IMAGES + OTHERS
        self._connections = [connection for connection in self._reader.connections if connection.msgtype in wanted]
        self.topics = {connection.topic: connection.msgtype for connection in self._connections}
        self.images = sorted(topic for topic, kind in self.topics.items() if kind in IMAGES)
        if not self.images:
            have = ", ".join(sorted({connection.topic for connection in self._reader.connections})) or "nothing"
            raise RosError(f"{path} has no topic with images, only {have}: record one of {', '.join(IMAGES)}")

    def messages(self) -> Iterator[Recorded]:
        """In the order in which they were recorded. RosError where the bag is damaged."""
        try:
            for connection, stamp, data in self._reader.messages(connections=self._connections):
                yield Recorded(connection.topic, stamp, bytes(data))
        except Exception as error:
            raise RosError(f"{self._path} is damaged from here on: {' '.join(str(error).split())}") from error

    def close(self) -> None:
        self._reader.close()


class Player:
    """Publishes a bag's messages in their own time."""

    def __init__(self, node: Any, bag: Bag, rate: float, clock: bool, stopped: Callable[[], bool]) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from rosgraph_msgs.msg import Clock

        from dust3r_ros.ros.conversion import to_time

        self._clock_message = lambda now: Clock(clock=to_time(max(now, 0)))
        self._node, self._bag, self._rate, self._stopped = node, bag, rate, stopped
        self._publishers = {}
        for topic, kind in bag.topics.items():
            static = topic.endswith("tf_static")
            qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL if static else DurabilityPolicy.VOLATILE)
            self._publishers[topic] = node.create_publisher(_message_class(kind), topic, qos)
        self._clock = node.create_publisher(Clock, "/clock", 10) if clock else None
        self.played = 0

    def wait_for_subscribers(self, count: int, timeout: float) -> None:
        """Until each image topic has that many; RosError after `timeout` seconds."""
        until = time.monotonic() + timeout
        while not self._stopped():
            lacking = [topic for topic in self._bag.images if self._publishers[topic].get_subscription_count() < count]
            if not lacking:
                time.sleep(SETTLE)
                return
            if time.monotonic() > until:
                raise RosError(
                    f"{lacking[0]} has fewer than {count} subscribers after {timeout:g} s: start the node first, or wait for fewer"
                )
            time.sleep(0.05)

    def play(self) -> None:
        """Once through the bag."""
        begun: tuple[int, float] | None = None
        for message in self._bag.messages():
            begun = begun or (message.stamp, time.monotonic())  # now, not before the bag was opened: what is late comes in a burst
            due = begun[1] + (message.stamp - begun[0]) * 1e-9 / self._rate
            self._wait(due, message.stamp)
            if self._stopped():
                return
            self._publishers[message.topic].publish(message.data)
            self.played += 1

    def _wait(self, due: float, stamp: int) -> None:
        while not self._stopped():
            left = due - time.monotonic()
            self._tick(stamp - round(max(left, 0.0) * self._rate * 1e9))
            if left <= 0:
                return
            time.sleep(min(left, CLOCK_PERIOD))

    def _tick(self, now: int) -> None:
        if self._clock is not None:
            self._clock.publish(self._clock_message(now))

    def finish(self, timeout: float) -> None:
        """Let the last messages reach those who listen."""
        from rclpy.duration import Duration

        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=timeout))
        time.sleep(0.2)  # best-effort listeners acknowledge nothing


def _message_class(kind: str) -> Any:
    package, folder, name = kind.split("/")
    return getattr(importlib.import_module(f"{package}.{folder}"), name)


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dust3r_ros.ros.player", description="Play the cameras of a rosbag2 over ROS 2.")
    parser.add_argument("bag", type=Path, help="folder with metadata.yaml, or an .mcap or .db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="times the recorded speed (default 1)")
    parser.add_argument("--clock", action="store_true", help="publish /clock, for nodes with use_sim_time")
    parser.add_argument("--loop", action="store_true", help="begin again at the end, until interrupted")
    parser.add_argument("--wait-for-subscribers", type=int, default=0, metavar="N", help="begin when each image topic has N subscribers")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for the subscribers (default 60)")
    given, ros_args = parser.parse_known_args(args)
    if not given.rate > 0:
        parser.error(f"--rate {given.rate:g}: give a number above 0")

    import rclpy
    from rclpy.signals import SignalHandlerOptions

    stops: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stops.append(number))
    try:
        bag = Bag(given.bag)
    except Dust3rError as error:
        print(f"player: {error}", file=sys.stderr)
        return 1
    rclpy.init(args=[sys.argv[0], *ros_args], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("dust3r_player")
    try:
        player = Player(node, bag, given.rate, given.clock, lambda: bool(stops))
        player.wait_for_subscribers(given.wait_for_subscribers, given.timeout)
        print(f"playing {given.bag}: {', '.join(bag.topics)}", flush=True)
        player.play()
        while given.loop and not stops:
            player.play()
        player.finish(2.0)
        print(f"{player.played} messages played", flush=True)
    except Dust3rError as error:
        print(f"player: {error}", file=sys.stderr)
        return 1
    finally:
        bag.close()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
