"""Processes that the demo starts and ends: each in a session of its own, its output in a file, its death noticed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from dust3r_ros.demo.inputs import DemoError

STOP_WAIT = 20.0  # seconds to end after SIGINT before it is killed


class Process:
    """A command that runs beside us; leaving the `with` block ends it."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.name, self.log = name, log
        self._output = log.open("wb")
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT, env=environment, start_new_session=True)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float, others: Sequence[Process] = ()) -> None:
        """Wait for its own end; DemoError if that is not a good one, comes too late, or if one of `others` dies meanwhile."""
        deadline = time.monotonic() + timeout
        while self.exit_code is None:
            for other in others:
                other.check()
            if time.monotonic() > deadline:
                raise DemoError(f"the {self.name} did not end within {timeout:.0f} s; its last words ({self.log}): {self.last_words()}")
            time.sleep(0.1)
        if self.exit_code != 0:
            raise DemoError(f"the {self.name} ended with code {self.exit_code}; its last words ({self.log}): {self.last_words()}")

    def check(self) -> None:
        """DemoError if it has ended."""
        if self.exit_code is not None:
            raise DemoError(f"the {self.name} died with code {self.exit_code}; its last words ({self.log}): {self.last_words()}")

    def stop(self) -> int:
        """Interrupt it as Ctrl-C does, kill it if it does not listen; its exit code."""
        if self.exit_code is None:
            self._signal(signal.SIGINT)
            try:
                self._process.wait(STOP_WAIT)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        self._output.close()
        return self._process.returncode

    def last_words(self) -> str:
        """The last line it wrote."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "(none)"

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
