"""`dust3r_node`: starts the node, and ends it cleanly on SIGINT and SIGTERM."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from types import FrameType

NEEDED = {
    "rclpy": "ROS 2 for Python: source a ROS 2 installation, or run 'make setup' in this project's folder",
    "tf2_msgs.msg": "a part of every ROS 2 installation: install ros-$ROS_DISTRO-tf2-msgs, or run 'make setup'",
    "dust3r_ros_msgs.msg": "this project's messages: run 'colcon build' in the workspace and source install/setup.bash, or 'make setup'",
}
DISCOVERY = 4.0  # seconds for the graph to show who else is there: longer than the 3 s between two announcements of Fast DDS
HEARTBEAT = 3.5  # seconds within which a living node says something on ~/status


def main(args: list[str] | None = None) -> int:
    """The exit status: 0 after a signal, 1 with one line on stderr if the node cannot run."""
    missing = what_is_missing()
    if missing:
        print(f"dust3r_node: {missing}", file=sys.stderr)
        return 1
    return _run(args)


def what_is_missing() -> str:
    """One line naming the first part that cannot be imported and the remedy; empty if all are there."""
    for module, remedy in NEEDED.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            return f"cannot import {module.partition('.')[0]} ({error}), {remedy}"
    return ""


def _run(args: list[str] | None) -> int:
    import logging

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from dust3r_ros.errors import Dust3rError
    from dust3r_ros.ros.log_handler import RosLogHandler
    from dust3r_ros.ros.node import Dust3rNode
    from dust3r_ros.ros.urgency import share_the_cores

    stopped: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        stopped.append(number)

    # Our own handlers: rclpy's would shut the context down under the worker's feet.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # bad --ros-args; rcl says which
        print(f"dust3r_node: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    share_the_cores()
    node = None
    try:
        node = Dust3rNode()
        logging.getLogger("dust3r_ros").addHandler(RosLogHandler(node.get_logger()))
        logging.getLogger("dust3r_ros").setLevel(logging.INFO)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.parameters.autostart and not _autostart(node, executor, stopped):
            return 0 if stopped else 1
        while not stopped:
            executor.spin_once(timeout_sec=0.2)
    except Dust3rError as error:
        print(f"dust3r_node: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _autostart(node, executor, stopped: list[int]) -> bool:  # type: ignore[no-untyped-def]
    from rclpy.lifecycle import TransitionCallbackReturn

    if node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
        return False  # the reason has been logged
    started = time.monotonic()  # after what may have taken long
    while time.monotonic() - started < DISCOVERY and not stopped:
        executor.spin_once(timeout_sec=0.1)
    name = node.get_fully_qualified_name()
    if not stopped and _another_lives(node, executor, stopped):
        node.get_logger().fatal(f"another node is called {name} already: end it, or give this one a name: --ros-args -r __node:=dust3r_2")
        return False
    _wait_until_warm(node, executor, stopped)
    if not stopped:
        node.trigger_activate()  # where that fails the reason has been logged, and the node stays, inactive
    return not stopped


def _wait_until_warm(node, executor, stopped: list[int]) -> None:  # type: ignore[no-untyped-def]
    """Images that come while code is compiled would be lost: two photographs are all that some bags hold."""
    if node.is_warmed_up():
        return
    node.get_logger().info("compiling, once on a new machine: images are listened to when it is done")
    while not node.is_warmed_up() and not stopped:
        executor.spin_once(timeout_sec=0.1)


def _another_lives(node, executor, stopped: list[int]) -> bool:  # type: ignore[no-untyped-def]
    """Whether a node of the same full name runs. One that was killed haunts the graph for a while, but says nothing any more."""
    from dust3r_ros_msgs.msg import Status

    name = node.get_fully_qualified_name()
    found = [f"{space.rstrip('/')}/{base}" for base, space in node.get_node_names_and_namespaces()]
    if found.count(name) < 2:
        return False
    heard: list[Status] = []
    subscription = node.create_subscription(Status, "~/status", heard.append, 10)
    until = time.monotonic() + HEARTBEAT
    while time.monotonic() < until and not heard and not stopped:
        executor.spin_once(timeout_sec=0.1)
    node.destroy_subscription(subscription)
    return bool(heard)


if __name__ == "__main__":
    sys.exit(main())
