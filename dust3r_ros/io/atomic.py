"""Files and folders that appear whole or not at all: written beside their place, moved into it at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dust3r_ros.errors import Dust3rError


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
    """A temporary folder beside `path` that takes its place unless an error is raised. What stood there before stands until then."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    old = temporary.with_suffix(".old")
    try:
        with explained(path):
            yield temporary
            os.chmod(temporary, 0o755)
            if path.exists():
                os.rename(path, old)
            os.rename(temporary, path)
    finally:
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


def _flush(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
