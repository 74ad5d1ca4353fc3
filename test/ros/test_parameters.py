"""Every parameter typed, ranged, described and mirrored; what is refused leaves the old value."""

from __future__ import annotations

from pathlib import Path

import pytest
import rclpy
import yaml
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.parameter import Parameter

from dust3r_ros.io.robot_config import RobotConfig
from dust3r_ros.mapping.config import MapperConfig, settings
from dust3r_ros.ros.errors import ParameterError
from dust3r_ros.ros.node import Dust3rNode
from dust3r_ros.ros.parameter_file import as_yaml
from dust3r_ros.ros.parameters import NodeConfig

ROOT = Path(__file__).resolve().parents[2]
ALL = {**settings(NodeConfig()), **settings(MapperConfig())}


def set_parameter(rig, name: str, value: object) -> tuple[bool, str]:
    message = Parameter(name, value=value).to_parameter_msg()
    result = rig.call(SetParameters, "~/set_parameters", parameters=[message]).results[0]
    return result.successful, result.reason


def get(rig, name: str) -> object:
    return rclpy.parameter.parameter_value_to_python(rig.call(GetParameters, "~/get_parameters", names=[name]).values[0])


def test_replay_has_the_nodes_names_and_defaults() -> None:
    node = settings(NodeConfig())
    assert {name: node[name] for name in settings(RobotConfig())} == settings(RobotConfig())


def test_each_is_declared_with_description_and_range(rig) -> None:
    quiet = rig(activate=False)
    described = quiet.call(DescribeParameters, "~/describe_parameters", names=list(ALL)).descriptors
    assert [item.name for item in described] == list(ALL)
    for item in described:
        assert item.description, item.name
        default = ALL[item.name]
        if isinstance(default, float):
            assert item.floating_point_range, item.name
        elif isinstance(default, int) and not isinstance(default, bool):
            assert item.integer_range, item.name


def test_the_yaml_file_mirrors_the_defaults() -> None:
    text = (ROOT / "config" / "dust3r.yaml").read_text()
    assert text == as_yaml(), "run: python -m dust3r_ros.ros.parameter_file > config/dust3r.yaml"
    tree = yaml.safe_load(text)["/**"]["ros__parameters"]

    def flat(branch: dict, prefix: str = "") -> dict:
        found = {}
        for name, value in branch.items():
            found.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
        return found

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in flat(tree).items()}
    assert given.pop("autostart") is True
    assert given == ALL
    assert {name: type(value) for name, value in given.items()} == {name: type(value) for name, value in ALL.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("map.voxel_size", -1.0),
        ("map.voxel_size", float("nan")),
        ("keyframes.max_rate", "fast"),
        ("watchdog", -5.0),
        ("window.size", 1),
        ("window.scene_graph", "swing-3"),
        ("on_time_jump", "sometimes"),
        ("cameras", ["left", "left"]),
        ("cameras", ["two words"]),
        ("rig.image", "/{name}/image_raw"),
        ("rig.image", "/{camera.name}/image_raw"),
        ("rig.camera_info", "/{camera[name]}/camera_info"),
        ("rig.frame", "{camera!r}"),
    ],
)
def test_out_of_range_or_of_the_wrong_type_is_refused_and_the_old_value_kept(rig, name: str, value: object) -> None:
    running = rig(activate=False)
    before = get(running, name)
    accepted, reason = set_parameter(running, name, value)
    assert not accepted
    assert reason
    assert get(running, name) == before
    assert before == (list(ALL[name]) if isinstance(ALL[name], tuple) else ALL[name])


def test_a_change_reaches_the_mapper_while_it_runs(rig) -> None:
    running = rig()
    assert set_parameter(running, "keyframes.max_rate", 2.0) == (True, "")
    running.until(lambda: running.node.mapper.config.keyframes.max_rate == 2.0, "the mapper has the new rate")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image", "/elsewhere"),
        ("base_frame", "base_link"),
        ("estimator.size", 224),
        ("publish_tf", False),
        ("publish_odom_tf", False),
    ],
)
def test_what_the_node_is_built_from_is_refused_while_it_runs_and_says_so(rig, name: str, value: object) -> None:
    running = rig()
    before = get(running, name)
    accepted, reason = set_parameter(running, name, value)
    assert not accepted
    assert name in reason
    assert "configured" in reason
    assert get(running, name) == before


def test_and_is_accepted_before_it_is_configured(rig) -> None:
    waiting = rig(activate=False)
    assert set_parameter(waiting, "image", "/elsewhere") == (True, "")
    assert waiting.node.parameters.node.image == "/elsewhere"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("map.voxel_size", -1.0),
        ("watchdog", "soon"),
        ("window.size", 2.5),
        ("image_transport", "theora"),
        ("rig.image", "/{camera.name}/image_raw"),
    ],
)
def test_a_bad_value_given_at_the_start_is_one_line_that_names_it(ros: None, name: str, value: object) -> None:  # noqa: ARG001
    with pytest.raises(ParameterError) as raised:
        Dust3rNode(parameter_overrides=[Parameter(name, value=value)])
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)
