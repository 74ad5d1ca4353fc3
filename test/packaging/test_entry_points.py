"""What pip and colcon install can be started."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _console_scripts() -> dict[str, str]:
    for call in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
        if isinstance(call, ast.keyword) and call.arg == "entry_points":
            lines = ast.literal_eval(call.value)["console_scripts"]
            return dict(map(str.strip, line.split("=")) for line in lines)  # type: ignore[misc]
    raise AssertionError("setup.py has no entry points")


def test_names_are_those_that_launch_files_and_scripts_rely_on() -> None:
    assert set(_console_scripts()) == {"dust3r_node", "dust3r_ros"}


@pytest.mark.parametrize("command", ["dust3r_node", "dust3r_ros"])
def test_command_can_be_called(command: str) -> None:
    module, function = _console_scripts()[command].split(":")
    assert callable(getattr(importlib.import_module(module), function))
