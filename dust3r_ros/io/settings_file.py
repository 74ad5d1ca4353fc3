"""Settings from files and from the command line: the Mapper's, and those of the robot that a bag is from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dust3r_ros.io.robot_config import RobotConfig
from dust3r_ros.mapping.config import ConfigError, MapperConfig, settings, with_settings


def read_config(file: Path | None, changes: list[str], unless_set: dict[str, Any] | None = None) -> MapperConfig:
    """Settings from a YAML file (plain, nested, or a node's `ros__parameters`), then `name=value` changes. Raises ConfigError.

    `unless_set`: what counts where neither says anything, instead of the default.
    """
    return with_settings(MapperConfig(), {**(unless_set or {}), **_read(file, changes, settings(MapperConfig()))})


def read_configs(file: Path | None, changes: list[str]) -> tuple[MapperConfig, RobotConfig]:
    """As `read_config`, with the settings of the robot that a bag is from."""
    robot, mapper = settings(RobotConfig()), settings(MapperConfig())
    values = _read(file, changes, {**robot, **mapper})
    of_robot = {name: value for name, value in values.items() if name in robot}
    of_mapper = {name: value for name, value in values.items() if name not in robot}
    return with_settings(MapperConfig(), of_mapper), with_settings(RobotConfig(), of_robot)


def _read(file: Path | None, changes: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """`known`: the settings that there are, with their defaults."""
    import yaml

    values: dict[str, Any] = {}
    if file is not None:
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"settings {file} cannot be read: {' '.join(str(error).split())}") from error
        found = _flat(content)
        # The node's file holds settings of ROS too; a plain file must not hold anything unknown.
        of_node = any("ros__parameters" in name for name in found)
        found = {name.split("ros__parameters.")[-1]: value for name, value in found.items()}
        values = {name: value for name, value in found.items() if name in known or not of_node}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change} is no name=value: for instance --set keyframes.max_rate=5")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {change} cannot be read as YAML: {' '.join(str(error).split())}; quote the value") from error
    return {name: _meant(value, known.get(name)) for name, value in values.items()}


def _meant(value: Any, default: Any) -> Any:
    """What YAML 1.1 does not take for what it is: 1e-2 for a number, nothing for an empty text."""
    if value is None and isinstance(default, str):
        return ""
    if isinstance(value, str) and isinstance(default, int | float) and not isinstance(default, bool):
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if isinstance(default, int) and number.is_integer() else number
    return value


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix.rstrip("."): content}
    return {name: value for key, inner in content.items() for name, value in _flat(inner, f"{prefix}{key}.").items()}
