"""Which process a folder belongs to: a lock that ends with it, however it ends."""

from __future__ import annotations

import os
from pathlib import Path


def claim(path: Path, create: bool = False) -> int | None:
    """Lock a folder or a file as long as this process lives; None if another one has, or where there are no such locks.

    The handle, to be closed by whoever gives it up. `create`: make the file if it is not there.
    """
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600) if create else os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
