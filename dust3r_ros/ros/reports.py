"""~/status and /diagnostics: the node's health as messages."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from dust3r_ros_msgs.msg import Status
from rclpy.node import Node
from rclpy.qos import QoSProfile

from dust3r_ros.mapping.types import TrackingState
from dust3r_ros.ros.conversion import to_header
from dust3r_ros.ros.health import Health, HealthBook, gpu_memory, resident_memory
from dust3r_ros.ros.watchdog import Finding

STATES = {
    None: Status.WAITING,
    TrackingState.INITIALISING: Status.INITIALISING,
    TrackingState.TRACKING: Status.TRACKING,
    TrackingState.LOST: Status.LOST,
}
LEVELS = {Status.TRACKING: DiagnosticStatus.OK, Status.INITIALISING: DiagnosticStatus.OK, Status.PAUSED: DiagnosticStatus.OK}
NAMES = {
    Status.WAITING: "waiting",
    Status.INITIALISING: "initialising",
    Status.TRACKING: "tracking",
    Status.LOST: "lost",
    Status.PAUSED: "paused",
    Status.FAULT: "fault",
}


class Reports:
    """Publishes both, every so often and at each change of state, to those who listen. Runs on the executor's thread."""

    def __init__(self, node: Node, book: HealthBook) -> None:
        self._node, self._book = node, book
        self._status = node.create_publisher(Status, "~/status", QoSProfile(depth=10))
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        self._told: int | None = None

    def destroy(self) -> None:
        self._node.destroy_publisher(self._status)
        self._node.destroy_publisher(self._diagnostics)

    def has_listeners(self) -> bool:
        return bool(self._status.get_subscription_count() or self._diagnostics.get_subscription_count())

    def publish(self, dropped: int, finding: Finding | None, map_frame: str, only_changes: bool = False) -> None:
        """`finding` is what the watchdog says now."""
        health = self._book.now
        state, reason = state_of(health, finding)
        if only_changes and state == self._told:
            return
        self._told = state
        if not self.has_listeners():
            return
        message = status_message(health, state, reason, self._book.rate(), dropped, map_frame)
        if self._status.get_subscription_count():
            self._status.publish(message)
        if self._diagnostics.get_subscription_count():
            now = self._node.get_clock().now().to_msg()
            array = DiagnosticArray(status=[diagnostic(self._node.get_fully_qualified_name(), health, message, finding)])
            array.header.stamp = now
            self._diagnostics.publish(array)


def state_of(health: Health, finding: Finding | None) -> tuple[int, str]:
    """Status.state and the reason for it, one line."""
    if health.paused:
        return Status.PAUSED, "paused by ~/pause"
    if health.fault:
        return Status.FAULT, health.reason
    if finding is not None and health.tracking is None:
        return Status.WAITING, finding.text
    return STATES[health.tracking], finding.text if finding is not None else health.reason


def status_message(health: Health, state: int, reason: str, rate: float, dropped: int, map_frame: str) -> Status:
    return Status(
        header=to_header(health.stamp, map_frame),
        state=state,
        reason=reason,
        frame_rate=rate,
        frames=health.frames,
        dropped_frames=dropped,
        keyframes=health.keyframes,
        window_keyframes=len(health.window),
        map_points=health.map_points,
        map_pieces=len(health.pieces),
        piece_keyframes=sum(health.pieces),
        stage_names=list(health.seconds),
        stage_seconds=list(health.seconds.values()),
        memory_bytes=resident_memory(),
        gpu_memory_bytes=gpu_memory(),
        scale_source=health.scale_source,
        scale_uncertainty=health.scale_uncertainty,
        model=health.model,
    )


def diagnostic(name: str, health: Health, status: Status, finding: Finding | None) -> DiagnosticStatus:
    """The same for those who watch /diagnostics."""
    level = LEVELS.get(status.state, DiagnosticStatus.WARN)
    if status.state == Status.FAULT:
        level = DiagnosticStatus.ERROR
    if finding is not None and level == DiagnosticStatus.OK:
        level = DiagnosticStatus.STALE
    values = {
        "frame rate (Hz)": f"{status.frame_rate:.1f}",
        "frames": status.frames,
        "dropped frames": status.dropped_frames,
        "unusable images": health.unusable,
        "images with old stamps": health.stale,
        "keyframes": status.keyframes,
        "keyframes in the window": status.window_keyframes,
        "map points": status.map_points,
        "map pieces": status.map_pieces,
        "lost for (s)": f"{health.lost_seconds:.1f}",
        "resident memory (MB)": f"{status.memory_bytes / 1e6:.0f}",
        "GPU memory (MB)": f"{status.gpu_memory_bytes / 1e6:.0f}",
        "model": status.model,
        "scale": "none" if health.scale_source == "none" else f"{health.scale_source}, {100 * health.scale_uncertainty:.1f} %",
        **{f"camera {name}": state for name, state in health.cameras.items()},
        **{f"{stage} (ms)": f"{1000 * spent:.1f}" for stage, spent in health.seconds.items()},
    }
    if finding is not None:
        values["no images because"] = finding.cause.value
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=f"{NAMES[status.state]}: {status.reason}", hardware_id="", values=pairs)
