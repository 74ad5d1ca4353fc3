"""The launch file, as `ros2 launch` reads it. Needs a ROS distribution: launch comes in no wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

launch_actions = pytest.importorskip("launch.actions")  # "launch" alone would find our folder of that name
pytest.importorskip("launch_ros.actions")

LAUNCH_FILE = Path(__file__).parents[2] / "launch/dust3r.launch.py"
TRANSPORT = "FASTDDS_BUILTIN_TRANSPORTS"
PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"


@pytest.fixture(autouse=True)
def _no_transport_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TRANSPORT, PROFILES, "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"):
        monkeypatch.delenv(name, raising=False)


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dust3r_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _started(**given: str) -> list[Any]:
    from launch import LaunchContext

    module, context = _module(), LaunchContext()
    for action in module.generate_launch_description().entities:
        if isinstance(action, launch_actions.DeclareLaunchArgument):
            context.launch_configurations[action.name] = given.get(action.name, "".join(part.text for part in action.default_value))
    return module._start(context)


def _nodes(actions: list[Any]) -> list[str]:
    from launch_ros.actions import Node

    return [action.node_executable for action in actions if isinstance(action, Node)]


def test_arguments() -> None:
    entities = _module().generate_launch_description().entities
    declared = {entity.name: entity for entity in entities if isinstance(entity, launch_actions.DeclareLaunchArgument)}
    assert set(declared) == {
        "image",
        "camera_info",
        "cameras",
        "compressed",
        "model",
        "weights",
        "params_file",
        "use_sim_time",
        "rviz",
        "bagfile",
        "mode",
        "map_file",
        "base_frame",
    }
    assert all(entity.description for entity in declared.values())


def test_files_named_by_default_are_there() -> None:
    config = _module().CONFIG
    assert {"dust3r.yaml", "rig.yaml", "dust3r.rviz", "fastdds_loopback.xml"} <= {file.name for file in config.iterdir()}


def test_starts_the_node_with_transports_for_large_data() -> None:
    actions = _started(image="/camera/image_raw")
    assert _nodes(actions) == ["dust3r_node"]
    assert any(isinstance(action, launch_actions.SetEnvironmentVariable) for action in actions)


def test_transports_that_the_user_chose_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROFILES, "/somewhere.xml")
    assert not any(isinstance(action, launch_actions.SetEnvironmentVariable) for action in _started())


def test_large_data_is_not_combined_with_local_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    assert not any(isinstance(action, launch_actions.SetEnvironmentVariable) for action in _started())


def test_rviz_on_request() -> None:
    assert _nodes(_started(rviz="true")) == ["dust3r_node", "rviz2"]


def test_a_bag_waits_for_the_node() -> None:
    assert any(isinstance(action, launch_actions.OpaqueFunction) for action in _started(bagfile="/bags/one"))


def test_a_switch_is_true_or_false() -> None:
    with pytest.raises(RuntimeError, match="compressed:=maybe is neither true nor false"):
        _started(compressed="maybe")
