"""Who goes first: the thread that tracks the camera and those that bring and take its messages; the map is made of what time is left.

None of this takes a privilege: nothing is made more urgent than it was.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

import cv2
import torch

LOCK_INTERVAL = 0.0001  # seconds for which a thread that waits lets another keep Python's lock; Python's own 5 ms are a sixth of a frame
NICER = 10  # steps of the nice value by which the map's threads are behind


def share_the_cores() -> None:
    """Of this process, before its other threads begin: leave cores to the camera while the map grows.

    OpenCV's and torch's pools belong to all threads at once. Tracking has little to divide, and would wait for helpers that the map keeps
    busy: on two cores each thread works by itself.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    cv2.setNumThreads(max(1, min(cv2.getNumThreads(), cores - 2)))
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores - 1)))
    sys.setswitchinterval(LOCK_INTERVAL)


def give_way() -> None:
    """The calling thread, and every one that it starts from now on, runs when the process's others leave it time. Only on Linux."""
    if sys.platform == "linux":  # elsewhere a nice value is the whole process's
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICER)
