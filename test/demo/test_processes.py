"""Processes that end well, badly, not at all, and beside others that die."""

import os
import sys
from pathlib import Path

import pytest

from dust3r_ros.demo.inputs import DemoError
from dust3r_ros.demo.processes import Process

SLEEP = "import time; print('up', flush=True); time.sleep(60)"


def _python(name: str, code: str, folder: Path) -> Process:
    return Process(name, [sys.executable, "-c", code], folder / f"{name}.log", dict(os.environ))


def test_a_good_end_is_waited_for(tmp_path: Path) -> None:
    with _python("player", "print('played')", tmp_path) as player:
        player.wait(30)
    assert player.exit_code == 0
    assert player.last_words() == "played"


def test_a_bad_end_is_told_with_the_last_words(tmp_path: Path) -> None:
    with (
        _python("player", "import sys; print('no such bag', file=sys.stderr); sys.exit(3)", tmp_path) as player,
        pytest.raises(DemoError, match=r"player ended with code 3.*no such bag"),
    ):
        player.wait(30)


def test_the_death_of_another_is_noticed(tmp_path: Path) -> None:
    with (
        _python("player", SLEEP, tmp_path) as player,
        _python("node", "raise SystemExit(7)", tmp_path) as node,
        pytest.raises(DemoError, match="node died with code 7"),
    ):
        player.wait(30, others=[node])
    assert player.exit_code is not None


def test_what_does_not_end_is_given_up_and_ended(tmp_path: Path) -> None:
    with _python("player", SLEEP, tmp_path) as player, pytest.raises(DemoError, match=r"did not end within 0 s"):
        player.wait(0.3)
    assert player.exit_code is not None


def test_an_interrupt_reaches_the_process(tmp_path: Path) -> None:
    code = "import signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(0))\nprint('up', flush=True)\ntime.sleep(60)"
    with _python("recorder", code, tmp_path) as recorder:
        while not recorder.log.read_text():
            recorder.check()
        assert recorder.stop() == 0
