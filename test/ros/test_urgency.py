"""Tracking goes first: the map's thread, and those that it starts, give way; the pools leave a core."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import cv2
import pytest
import torch

from dust3r_ros.mapping import Localiser, Mapper, MapperConfig, Rig, RigMapper
from dust3r_ros.ros.two_threads import Listener, TwoThreads
from dust3r_ros.ros.urgency import LOCK_INTERVAL, NICER, give_way, share_the_cores

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="a thread's own nice value is Linux's")


def nice_value() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def in_a_thread(job: Callable[[], None]) -> None:
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()


@on_linux
def test_a_thread_that_gives_way_takes_those_along_that_it_starts_and_no_other() -> None:
    before, seen = nice_value(), []

    def job() -> None:
        give_way()
        seen.append(nice_value())
        in_a_thread(lambda: seen.append(nice_value()))

    in_a_thread(job)
    assert seen == [min(19, before + NICER)] * 2
    assert nice_value() == before


@pytest.fixture
def threads() -> Iterator[Callable[[Mapper | Localiser], TwoThreads]]:
    built: list[TwoThreads] = []

    def build(mapper: Mapper | Localiser) -> TwoThreads:
        nobody = Listener(lambda _: None, lambda *_: None, lambda _: None, lambda: None, lambda *_: None)
        built.append(TwoThreads(mapper, lambda _: None, lambda _: None, nobody))
        return built[-1]

    yield build
    for one in built:
        assert one.stop()


@on_linux
def test_the_map_gives_way_to_tracking_but_not_where_it_tracks_itself(threads: Callable[[Mapper | Localiser], TwoThreads]) -> None:
    own = nice_value()
    mapping, tracks_itself = threads(Mapper(MapperConfig())), threads(RigMapper(Rig({}), MapperConfig()))
    assert mapping.mapping.submit(nice_value).result(10) == min(19, own + NICER)
    assert mapping.tracking.submit(nice_value).result(10) == own
    assert tracks_itself.mapping.submit(nice_value).result(10) == own


@on_linux
def test_it_gives_way_alike_whatever_the_mode_was_before(threads: Callable[[Mapper | Localiser], TwoThreads]) -> None:
    kinds, seen = (Mapper, Localiser), set()
    for first, then in (kinds, kinds[::-1]):
        running = threads(first(MapperConfig()))
        seen.add(running.mapping.submit(nice_value).result(10))
        running.mapping.submit(partial(running.take, then(MapperConfig()))).result(10)
        seen.add(running.mapping.submit(nice_value).result(10))
    assert seen == {min(19, nice_value() + NICER)}


def test_both_are_told_to_stop_where_the_first_does_not(threads: Callable[[Mapper | Localiser], TwoThreads]) -> None:
    running, begun, go_on = threads(Mapper(MapperConfig())), threading.Event(), threading.Event()
    busy = running.tracking.submit(lambda: begun.set() or go_on.wait(10))
    assert begun.wait(10)
    stop, running.tracking.stop = running.tracking.stop, partial(running.tracking.stop, 0.1)
    assert not running.stop()
    with pytest.raises(RuntimeError):
        running.mapping.submit(lambda: None).result(10)
    running.tracking.stop = stop
    go_on.set()
    assert busy.result(10)


def test_pools_leave_cores_and_never_take_more_than_they_had() -> None:
    before = cv2.getNumThreads(), torch.get_num_threads(), sys.getswitchinterval()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        share_the_cores()
        assert 1 <= cv2.getNumThreads() <= max(1, min(before[0], cores - 2))
        assert 1 <= torch.get_num_threads() <= max(1, min(before[1], cores - 1))
        assert sys.getswitchinterval() == pytest.approx(LOCK_INTERVAL)
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
        sys.setswitchinterval(before[2])
