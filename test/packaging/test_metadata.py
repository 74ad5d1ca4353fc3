"""The files that colcon, rosdep and pip read tell one story."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _setup(*queries: str) -> list[str]:
    answer = subprocess.run([sys.executable, "setup.py", "--quiet", *queries], cwd=ROOT, capture_output=True, text=True, check=True)
    return answer.stdout.split("\n")


@pytest.mark.parametrize("folder", [".", "msg", "tools/wheels/tf2_msgs"])
def test_manifest_is_valid(folder: str) -> None:
    package = pytest.importorskip("catkin_pkg.package")
    warnings: list[str] = []
    found = package.parse_package(str(ROOT / folder / "package.xml"), warnings=warnings)
    assert found.package_format == 3
    assert warnings == []


def test_versions_and_licences_agree() -> None:
    name, version, licence = _setup("--name", "--version", "--license")[:3]
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    messages = ElementTree.parse(ROOT / "msg/package.xml").getroot()
    assert manifest.findtext("name") == name == "dust3r_ros"
    assert manifest.findtext("version") == messages.findtext("version") == version
    assert manifest.findtext("license") == messages.findtext("license") == licence == "Apache-2.0"
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_package_has_its_resource_marker() -> None:
    assert (ROOT / "resource/dust3r_ros").is_file()


def test_every_interface_is_generated() -> None:
    named = set(re.findall(r'"[^"]*?(\w+\.(?:msg|srv|action))"', (ROOT / "msg/CMakeLists.txt").read_text()))
    lying = {file.name for kind in ("msg", "srv", "action") for file in (ROOT / "msg").rglob(f"*.{kind}")}
    assert named == lying


def test_every_ros_package_that_the_code_imports_is_a_dependency() -> None:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {element.text for element in manifest.iter() if element.tag.endswith("depend")}
    imports = re.compile(r"^\s*(?:from|import) (rclpy|\w+_msgs|\w+_interfaces|std_srvs|launch|launch_ros|tf2_ros)\b", re.MULTILINE)
    files = [*(ROOT / "dust3r_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    imported = {name for file in files for name in imports.findall(file.read_text(encoding="utf-8"))}
    assert imported - declared == set()
    assert "rclpy" in imported


def test_every_pinned_requirement_of_the_wheels_has_its_version() -> None:
    constraints = (ROOT / "requirements/constraints.txt").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==", constraints, re.MULTILINE))
    wanted = [line for line in (ROOT / "requirements/ros_wheels.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [name for name in wanted if name.replace("_", "-") not in pinned] == []


def test_the_files_of_a_shipped_model_go_into_the_package(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for folder in ("dust3r_ros", "kernels"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / file, tree)
    names = ("dust3r_nano.safetensors", "dust3r_nano.json", "MODEL_CARD.md")
    for name in names:
        (tree / "dust3r_ros" / "models" / name).touch()
    build = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(build, cwd=tree, capture_output=True, check=True)
    assert {name for name in names if (tmp_path / "built" / "dust3r_ros" / "models" / name).is_file()} == set(names)
