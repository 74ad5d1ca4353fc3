"""Real rclpy over real DDS, kept on this machine and apart from other runs."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

# Set before any participant exists, and inherited by the processes that tests start.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ["ROS_DOMAIN_ID"] = str(2 * random.SystemRandom().randint(1, 50) - WORKER % 2)  # two workers never meet
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE" if os.environ.get("ROS_DISTRO") == "humble" else "FASTDDS_DEFAULT_PROFILES_FILE"
os.environ[PROFILE] = str(ROOT / "config" / "fastdds_loopback.xml")


def missing_part() -> str:
    from dust3r_ros.ros.main import what_is_missing

    return what_is_missing()


LACKS = missing_part()
NEED_NO_ROS = {"test_main.py", "test_worker.py", "test_transforms.py", "test_throttle.py"}
if LACKS:
    collect_ignore_glob = [path.name for path in HERE.glob("test_*.py") if path.name not in NEED_NO_ROS]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and item.path.name not in NEED_NO_ROS:
            item.add_marker(pytest.mark.ros)


def pytest_report_header() -> str | None:
    return f"test/ros is left out: {LACKS}" if LACKS else None


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    rclpy = pytest.importorskip("rclpy")
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope="session")
def views() -> list:
    """Every sixth view of the simulated room, 24 cm apart: the third is a keyframe."""
    from dust3r_ros.simulation import room_sequence

    sequence = room_sequence(48, 240, 180)
    return [sequence[k] for k in range(0, 48, 6)]


@pytest.fixture
def rig(ros: None) -> Iterator[Callable[..., object]]:  # noqa: ARG001
    """rig(**parameters) -> an active node with a client beside it; taken down at the end."""
    from support.rig import Rig

    rigs: list[Rig] = []

    def build(*, activate: bool = True, **parameters: object) -> Rig:
        rigs.append(Rig(parameters, activate))
        return rigs[-1]

    yield build
    for one in rigs:
        one.close()
