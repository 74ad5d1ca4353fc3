"""One thread and what it owns: the newest item waits in a slot, jobs go before it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Worker(Generic[Item]):
    """`handle` gets the newest item offered; one that nobody looked at before the next came is dropped and counted."""

    def __init__(self, handle: Callable[[Item], None], on_error: Callable[[Exception], None], name: str = "mapper") -> None:
        self._handle, self._on_error = handle, on_error
        self._slot: Item | None = None
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._busy = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> None:
        """Put the newest item into the slot; never waits for the thread's work."""
        with self._wake:
            if self._slot is not None:
                self.dropped += 1
            self._slot = item
            self._wake.notify()

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Have `job` done on the thread, between two items."""
        future: Future[Result] = Future()
        with self._wake:
            if self._stopping:
                future.set_exception(RuntimeError("the node is shutting down"))
                return future
            self._jobs.append((job, future))
            self._wake.notify()
        return future

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done and nothing waits."""
        with self._wake:
            return not (self._busy or self._jobs or self._slot is not None)

    def clear(self) -> None:
        """Forget the item that waits."""
        with self._wake:
            self._slot = None

    def stop(self, timeout: float = 30.0) -> bool:
        """Finish what is being done, then end; jobs that still wait are cancelled. False if it did not end in time (seconds)."""
        with self._wake:
            self._stopping = True
            self._slot = None
            waiting, self._jobs = self._jobs, deque()
            self._wake.notify()
        for _, future in waiting:
            future.cancel()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._busy = False
                self._wake.wait_for(lambda: self._stopping or self._jobs or self._slot is not None)
                if self._stopping:
                    return
                self._busy = True
                job = self._jobs.popleft() if self._jobs else None
                item = None
                if job is None:
                    item, self._slot = self._slot, None
            if job is not None:
                self._do(*job)
            elif item is not None:
                try:
                    self._handle(item)
                except Exception as error:  # whatever one image brings, the next one gets its chance
                    self._on_error(error)

    @staticmethod
    def _do(job: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(job())
        except Exception as error:  # belongs to whoever asked for the job
            future.set_exception(error)
