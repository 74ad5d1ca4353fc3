"""`dust3r_ros doctor` where something is missing, which is what it is for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dust3r_ros.doctor import NEEDED

ROOT = Path(__file__).parents[2]
WITHOUT = """import sys
for name in {names!r}:
    sys.modules[name] = None
sys.argv = ["dust3r_ros", "doctor"]
from dust3r_ros.cli import main
main()"""


@pytest.mark.parametrize("names", [["torch"], ["scipy", "cv2"], sorted(NEEDED.keys() - {"typer", "rich"})], ids=str)
def test_it_says_what_to_install_and_does_not_fail_itself(names: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(names=names)], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.returncode == 1
    for name in names:
        assert f"{name}: missing: pip install {NEEDED[name]}" in done.stdout


def test_it_asks_for_all_that_an_installation_brings() -> None:
    required = re.search(r"install_requires=\[(.*?)\]", (ROOT / "setup.py").read_text(), re.DOTALL)
    assert required is not None
    assert set(NEEDED.values()) == {re.split(r"[<>=]", name)[0] for name in re.findall(r'^\s*"([^"]+)"', required[1], re.MULTILINE)}


def test_the_command_is_there_at_once() -> None:
    """`--help` must not wait for torch."""
    heavy = "import dust3r_ros.cli, sys; print([name for name in ('torch', 'scipy', 'cv2', 'numba') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
