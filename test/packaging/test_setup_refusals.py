"""Where `make setup` cannot work it says so in one line with a remedy, before it changes anything.

The script itself runs, in a copy of the sources it reads, with a PATH whose programs describe another machine.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "env", "dirname", "cat", "find", "sort", "xargs", "sha256sum", "grep", "awk", "mkdir", "rm", "make", "cc", "c++")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class Machine:
    """A machine that has only what it is given, and the sources to be set up on it."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.sources = folder / "bin", folder / "sources"
        self.programs.mkdir()
        self.sources.mkdir()
        shutil.copytree(ROOT / "tools", self.sources / "tools")
        for name in TOOLS:
            found = shutil.which(name)
            if found is None:
                pytest.skip(f"{name} is not on this machine")
            self.has(name, f'exec "{found}" "$@"')
        self.has("uname", _uname("Linux", "x86_64"))
        self.has("df", "echo header; echo /dev/disk 99999999 1 99999999 1% /")  # kB
        self.has_python("")

    def has(self, name: str, script: str) -> None:
        program = self.programs / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!{shutil.which('bash')}\n{script}\n")
        program.chmod(0o755)

    def has_python(self, prelude: str) -> None:
        """A python3 that runs `prelude` before what it is given on its standard input."""
        self.has("python3", f"{{ echo {shlex.quote(prelude)}; cat; }} | {sys._base_executable} -")  # type: ignore[attr-defined]

    def lacks(self, name: str) -> None:
        (self.programs / name).unlink()

    def refusal(self, **environment: str) -> str:
        """The one line that set-up ends with. Fails when there is another, or when something was made."""
        bash = shutil.which("bash")
        assert bash is not None
        given = {"PATH": str(self.programs), "HOME": os.environ.get("HOME", "/"), **environment}
        answer = subprocess.run([bash, "tools/setup.sh"], cwd=self.sources, env=given, capture_output=True, text=True, timeout=60)
        assert answer.returncode == 1, answer
        assert answer.stdout == ""
        assert answer.stderr.count("\n") == 1, answer.stderr
        assert not (self.sources / ".venv").exists()
        return answer.stderr


def _uname(system: str, machine: str) -> str:
    return f"[[ $1 == -m ]] && echo {machine} || echo {system}"


def test_arm_without_ros(machine: Machine) -> None:
    machine.has("uname", _uname("Linux", "aarch64"))
    line = machine.refusal()
    assert "no ROS 2 wheels for aarch64" in line
    assert "source /opt/ros" in line


def test_arm_with_ros_gets_further(machine: Machine) -> None:
    machine.has("uname", _uname("Linux", "aarch64"))
    assert "'colcon' is missing" in machine.refusal(ROS_DISTRO="jazzy")


@pytest.mark.parametrize("system", ["Darwin", "MINGW64_NT-10.0"])
def test_other_systems_have_the_offline_commands(machine: Machine, system: str) -> None:
    machine.has("uname", _uname(system, "x86_64"))
    line = machine.refusal()
    assert system in line
    assert "pip install ." in line


@pytest.mark.parametrize("compiler", ["cc", "c++"])
def test_no_compiler(machine: Machine, compiler: str) -> None:
    machine.lacks(compiler)
    assert "apt install build-essential" in machine.refusal()


def test_no_make(machine: Machine) -> None:
    machine.lacks("make")
    assert "apt install make" in machine.refusal()


def test_little_disk(machine: Machine) -> None:
    machine.has("df", "echo header; echo /dev/disk 99999999 1 2999999 1% /")  # kB
    line = machine.refusal()
    assert "2 GB are free" in line
    assert "6 are needed" in line


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0)])
def test_python_too_old_or_too_new(machine: Machine, version: tuple[int, int, int]) -> None:
    machine.has_python(f"import sys; sys.version_info = {version}")
    line = machine.refusal()
    assert f"python3 is Python 3.{version[1]}" in line
    assert "PYTHON=" in line


def test_no_python(machine: Machine) -> None:
    machine.lacks("python3")  # and no python3.12 or another on this PATH
    assert "no Python found" in machine.refusal()


def test_python_that_the_user_named_does_not_exist(machine: Machine) -> None:
    assert "/nowhere/python" in machine.refusal(PYTHON="/nowhere/python")


def test_python_without_venv(machine: Machine) -> None:
    machine.has_python("import importlib.util as u; found = u.find_spec; u.find_spec = lambda name: name != 'ensurepip' and found(name)")
    assert "apt install python3-venv" in machine.refusal()


def test_python_without_headers(machine: Machine) -> None:
    machine.has_python("import os.path; os.path.exists = lambda path: not path.endswith('Python.h')")
    assert "apt install python3-dev" in machine.refusal()
