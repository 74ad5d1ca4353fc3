"""Being asked to stop: the step that runs is finished and saved; asked twice, it ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether SIGINT or SIGTERM came, and which."""

    def __init__(self) -> None:
        self.signal = 0


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Takes the two signals over while it is open; elsewhere than in the main thread nothing can be taken over."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal = number
        signal.signal(number, before[signal.Signals(number)])  # the second one is the caller's own business

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
