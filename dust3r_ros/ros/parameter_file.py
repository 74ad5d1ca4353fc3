"""config/dust3r.yaml, written from the code: python -m dust3r_ros.ros.parameter_file > config/dust3r.yaml"""

from __future__ import annotations

import json
from typing import Any

from dust3r_ros.mapping.config import MapperConfig
from dust3r_ros.ros.parameters import AUTOSTART, NodeConfig, items

HEAD = """\
# Every parameter of the node with its default: as it stands, this file changes nothing. Change what you need and give it with
# params_file:=/path/to/it. 'ros2 param describe /dust3r NAME' shows range and description; most can change while the node runs.
# Written by: python -m dust3r_ros.ros.parameter_file
/**:
  ros__parameters:
"""


def as_yaml() -> str:
    """Every parameter with its default, range and description."""
    groups = {"": [f"    autostart: true  # {AUTOSTART.description}"]}
    for config in (NodeConfig(), MapperConfig()):
        for name, item in items(config):
            prefix, _, leaf = name.rpartition(".")
            lines = groups.setdefault(prefix, [f"    {prefix}:"])  # the node and the Mapper may both have some of a group
            lines.append(f"{' ' * (6 if prefix else 4)}{leaf}: {json.dumps(item.default)}  # {item.metadata['description']}{_limits(item)}")
    return HEAD + "\n".join(line for lines in groups.values() for line in lines) + "\n"


def _limits(item: Any) -> str:
    low, high, choices = item.metadata["low"], item.metadata["high"], item.metadata["choices"]
    if choices and not all(choice in item.metadata["description"] for choice in choices):
        return f" ({', '.join(choices)})"
    return f" ({low:g} to {high:g})" if low is not None and high is not None else ""


if __name__ == "__main__":
    print(as_yaml(), end="")
