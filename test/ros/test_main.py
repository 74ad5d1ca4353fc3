"""The command, where ROS or a part of it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'")
sys.meta_path.insert(0, Block())
from dust3r_ros.ros.main import main
sys.exit(main([]))
"""


@pytest.mark.parametrize("part", ["rclpy", "tf2_msgs", "dust3r_ros_msgs"])
def test_a_missing_part_is_one_line_and_a_failure(part: str) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCK.format(name=part)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("dust3r_node: cannot import ")
    assert "make setup" in line
