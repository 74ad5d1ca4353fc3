"""The README says what is: its parameters are those of the code, its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 4
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.ros
def test_the_parameter_table_is_the_codes() -> None:
    pytest.importorskip("rclpy")
    from dust3r_ros.mapping import MapperConfig
    from dust3r_ros.ros.parameters import NodeConfig, items

    rows = {m[1]: (m[2], m[3]) for m in re.finditer(r"^\| `([\w.]+)` \| `(.*?)` \| (.*) \|$", README, re.MULTILINE)}
    code = {}
    for config in (NodeConfig(), MapperConfig()):
        for name, item in items(config):
            default = str(item.default).lower() if isinstance(item.default, bool) else str(item.default) or '""'
            default = json.dumps(item.default) if isinstance(item.default, tuple) else default
            code[name] = (default, item.metadata["description"])
    assert rows == code
