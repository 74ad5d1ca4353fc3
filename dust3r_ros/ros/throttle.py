"""A warning said once, then rarely, with the number of times it came again."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

PERIOD = 10.0  # seconds between two lines of one kind


class Throttle:
    """Lines that differ in numbers only are one kind."""

    def __init__(self, say: Callable[[str], object], period: float = PERIOD) -> None:
        self._say, self._period = say, period
        self._kinds: dict[str, tuple[float, int]] = {}  # kind -> when it was said last, how often it came since
        self._lock = threading.Lock()

    def __call__(self, text: str, details: str = "") -> None:
        """`details` (a trace) come with the first line of a kind only."""
        kind, now = re.sub(r"\d+", "#", text), time.monotonic()
        with self._lock:
            if len(self._kinds) > 1000:
                self._kinds.clear()
            known = self._kinds.get(kind)
            if known is not None and now - known[0] < self._period:
                self._kinds[kind] = (known[0], known[1] + 1)
                return
            self._kinds[kind] = (now, 0)
        again = f" ({known[1]} more of these since)" if known is not None and known[1] else ""
        self._say(text + again + (f"\n{details}" if details and known is None else ""))
