"""The newest item wins, jobs go first, and nothing that one item does stops the next."""

from __future__ import annotations

import threading

import pytest

from dust3r_ros.ros.worker import Worker


class Gate:
    """A handler that waits to be let on."""

    def __init__(self) -> None:
        self.handled: list[object] = []
        self.busy, self.go_on = threading.Event(), threading.Event()

    def __call__(self, item: object) -> None:
        self.handled.append(item)
        self.busy.set()
        assert self.go_on.wait(10)


def test_only_the_newest_of_the_items_that_wait_is_handled() -> None:
    gate = Gate()
    worker: Worker[object] = Worker(gate, lambda _: None)
    worker.offer("first")
    assert gate.busy.wait(10)
    for item in ("second", "third", "fourth"):
        worker.offer(item)
    gate.go_on.set()
    worker.submit(lambda: None).result(10)
    worker.submit(lambda: None).result(10)
    assert worker.stop()
    assert gate.handled in (["first", "fourth"], ["first"])  # stop() may come before the last one
    assert worker.dropped == 2


def test_an_item_that_fails_is_reported_and_the_next_is_handled() -> None:
    errors, done = [], threading.Event()

    def handle(item: str) -> None:
        if item == "bad":
            raise ValueError(item)
        done.set()

    def on_error(error: Exception) -> None:
        errors.append(error)
        worker.offer("good")

    worker: Worker[str] = Worker(handle, on_error)
    worker.offer("bad")
    assert done.wait(10)
    assert [str(error) for error in errors] == ["bad"]
    assert worker.stop()


def test_a_job_s_result_and_its_error_come_back_to_who_asked() -> None:
    worker: Worker[object] = Worker(lambda _: None, lambda _: None)
    assert worker.submit(lambda: 42).result(10) == 42
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 / 0).result(10)
    assert worker.stop()


def test_jobs_that_wait_when_it_stops_are_cancelled() -> None:
    gate = Gate()
    worker: Worker[object] = Worker(gate, lambda _: None)
    worker.offer("item")
    assert gate.busy.wait(10)
    waiting = worker.submit(lambda: None)
    assert not worker.stop(timeout=0.05)
    assert waiting.cancelled()
    gate.go_on.set()
    assert worker.stop()
    with pytest.raises(RuntimeError):
        worker.submit(lambda: None).result(10)
