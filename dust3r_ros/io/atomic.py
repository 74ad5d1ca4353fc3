"""Files and folders that appear whole or not at all: written beside their place, moved into it at the end."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dust3r_ros.errors import Dust3rError
from dust3r_ros.folder_lock import claim

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux's renameat2


class OutputError(Dust3rError):
    """Something cannot be written."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; what was written there replaces `path` unless an error is raised."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with explained(path):
            yield temporary
            _flush(temporary)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place unless an error is raised. What stood there before stands until then.

    Runs that were killed leave their temporary folder behind; the next one for the same `path` removes it.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    claimed = claim(temporary)
    old = temporary.with_suffix(".old")
    try:
        with explained(path):
            yield temporary
            os.chmod(temporary, 0o755)
            if hasattr(os, "sync"):  # else a power cut could leave new names with old or no content
                os.sync()
            if not _exchanged(temporary, path):
                if path.exists():
                    os.rename(path, old)
                os.rename(temporary, path)
    finally:
        if claimed is not None:
            os.close(claimed)
        if old.exists() and not path.exists():  # the swap was cut off between its two steps
            os.rename(old, path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusals into one line that names the path and the remedy."""
    try:
        yield
    except PermissionError as error:
        raise OutputError(f"{path} cannot be written: permission denied; choose another place or change its permissions") from error
    except OSError as error:
        remedy = "free some space or choose another disk" if error.errno in (28, 27, 122) else "choose another place"
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; {remedy}") from error


def _exchanged(temporary: Path, path: Path) -> bool:
    """Swap two names in one step, so that a kill finds the old or the new; False where this cannot be done, and nothing has changed."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return renameat2(AT_FDCWD, os.fsencode(temporary), AT_FDCWD, os.fsencode(path), RENAME_EXCHANGE) == 0


def _remove_abandoned(path: Path) -> None:
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):  # another user's
            if folder.is_dir() and (handle := claim(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)


def _flush(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
