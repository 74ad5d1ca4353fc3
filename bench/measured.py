"""A function run in a process of its own, and the memory that a stretch of it takes (Linux)."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass
class Failure:
    reason: str


@dataclass
class Peak:
    bytes: float = float("nan")


def in_own_process(run: Callable[..., Any], *arguments: Any) -> Any:
    """What `run` returns, from a forked child, which sees the arguments without copying them; or a Failure."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
        try:
            result = run(*arguments)
        except Exception as error:
            result = Failure(f"{type(error).__name__}: {error}")
        sender.send(result)

    child = context.Process(target=work)
    child.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        child.join()
        return Failure(f"the process ended with {child.exitcode}")
    child.join()
    return result


def resident() -> float:
    """Bytes, without what was freed but kept."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


@contextmanager
def peak_above() -> Iterator[Peak]:
    """The most resident memory within, above that at its start."""
    before, peak = resident(), Peak()  # what was freed but kept would hide what is taken next
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    yield peak
    peak.bytes = _status("VmHWM") - before


def available_bytes() -> float:
    return _field(Path("/proc/meminfo"), "MemAvailable")


def _status(name: str) -> float:
    return _field(Path("/proc/self/status"), name)


def _field(file: Path, name: str) -> float:
    return next(1024.0 * int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(name + ":"))
