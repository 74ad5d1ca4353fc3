"""Work on images side by side, on two threads: the compiled loops and torch's products leave Python's lock alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

Result = TypeVar("Result")
THREADS = 2


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "alignment")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


def each(work: Callable[[int], Result], count: int) -> list[Result]:
    """[work(0), work(1), ...], whatever the order in which they are done."""
    return list(_pool().map(work, range(count)))


def ranges(work: Callable[[int, int], None], count: int, large: bool) -> None:
    """work(begin, end) over all of 0..count: cut in two where it is `large`."""
    if not large or count < THREADS:
        work(0, count)
        return
    cuts = [count * k // THREADS for k in range(THREADS + 1)]
    list(_pool().map(work, cuts[:-1], cuts[1:]))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """BLAS and torch on one thread: small products on several wait for each other, on a busy machine a hundred times as long."""
    threads = torch.get_num_threads()
    with _libraries().limit(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
