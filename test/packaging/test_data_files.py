"""What setup.py installs beside the code: files that are there, and all recipes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import setuptools  # its distutils takes the place of Python's, which newer ones lack

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    monkeypatch.chdir(ROOT)
    assert setuptools.__version__
    return dict(importlib.import_module("distutils.core").run_setup("setup.py", stop_after="init").data_files)


def test_each_is_a_file(data_files: dict[str, list[str]]) -> None:
    """A folder among them would end the installation."""
    for folder, files in data_files.items():
        assert files, folder
        assert [file for file in files if not (ROOT / file).is_file()] == [], folder


def test_all_of_config_is_installed(data_files: dict[str, list[str]]) -> None:
    for folder in ("config", "config/train"):
        there = {path.name for path in (ROOT / folder).iterdir() if path.is_file()}
        assert {Path(file).name for file in data_files[f"share/dust3r_ros/{folder}"]} == there
