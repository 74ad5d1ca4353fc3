"""Settings from files and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dust3r_ros.mapping.config import ConfigError, MapperConfig, settings, with_settings


def read_config(file: Path | None, changes: list[str]) -> MapperConfig:
    """Settings from a YAML file (plain, nested, or a node's `ros__parameters`), then `name=value` changes. Raises ConfigError."""
    import yaml

    values: dict[str, Any] = {}
    if file is not None:
        try:
            content = yaml.safe_load(file.read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"settings {file} cannot be read: {' '.join(str(error).split())}") from error
        known = settings(MapperConfig())
        found = _flat(content)
        # The node's file holds settings of ROS too; a plain file must not hold anything unknown.
        of_node = any("ros__parameters" in name for name in found)
        found = {name.split("ros__parameters.")[-1]: value for name, value in found.items()}
        values = {name: value for name, value in found.items() if name in known or not of_node}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change} is no name=value: for instance --set keyframes.max_rate=5")
        values[name] = yaml.safe_load(text)
    return with_settings(MapperConfig(), values)


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix.rstrip("."): content}
    return {name: value for key, inner in content.items() for name, value in _flat(inner, f"{prefix}{key}.").items()}
