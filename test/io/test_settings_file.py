"""What people write in settings files and after --set is taken for what it means, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dust3r_ros.io.settings_file import read_config
from dust3r_ros.mapping.config import ConfigError


def test_numbers_may_have_exponents_and_texts_may_be_empty(tmp_path: Path) -> None:
    config = read_config(None, ["map.voxel_size=1e-2", "map.max_points=2e6", "keyframes.max_rate=3", "map.folder=here"])
    assert (config.map.voxel_size, config.map.max_points, config.keyframes.max_rate) == (0.01, 2_000_000, 3.0)
    file = tmp_path / "settings.yaml"
    file.write_text("map:\n  folder: /scratch\n  voxel_size: 5e-2\n")
    assert read_config(file, []).map.folder == "/scratch"
    assert read_config(file, ["map.folder="]).map.folder == ""
    assert read_config(file, []).map.voxel_size == 0.05


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("map.voxel_size=small", "'map.voxel_size' is 'small', a str: give a float"),
        ("map.max_points=1.5e0", "'map.max_points' is 1.5, a float: give a int"),
        ("map.folder=[", "--set map.folder=\\[ cannot be read as YAML"),
        ("map.voxel_size", "is no name=value"),
    ],
)
def test_what_is_meant_by_nothing_is_refused_by_name(change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_config(None, [change])


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes("map:\n  folder: /für\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml cannot be read"):
        read_config(file, [])
