"""A bounded number of things in memory, the rest in files: what was used longest ago goes to the disk, and comes back if asked for."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from dust3r_ros.errors import Dust3rError
from dust3r_ros.folder_lock import claim

log = logging.getLogger(__name__)

PREFIX = "dust3r_keyframes_"
LOCK = "in_use"

Thing = TypeVar("Thing")


class StorageError(Dust3rError):
    """A keyframe that can neither be kept in memory nor be written or read."""


class ScratchFolder:
    """A folder of its own for one map, made when it is first needed and removed with the last who refers to it.

    What a run left that was killed is removed by the next one in the same place.
    """

    def __init__(self, parent: str = "") -> None:
        """`parent`: where it is made; empty: the system's folder for temporary files."""
        self._parent = Path(parent).expanduser() if parent else Path(tempfile.gettempdir())
        self._path: Path | None = None
        self._written, self._process = 0, os.getpid()

    @property
    def path(self) -> Path:
        """Raises OSError where none can be made."""
        if self._path is None:
            self._parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self._parent)
            self._path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._parent))
            self._lock = claim(self._path / LOCK, create=True)
            weakref.finalize(self, _remove, self._path, self._lock, self._process)
        return self._path

    @property
    def place(self) -> Path:
        """For messages: where it is, or would be."""
        return self._path or self._parent

    @property
    def is_ours(self) -> bool:
        """False in a process that was forked from the one that writes here."""
        return self._process == os.getpid()

    def new_file(self) -> Path:
        """A path that was never used before. Raises OSError."""
        self._written += 1
        self.path.mkdir(parents=True, exist_ok=True)  # some system may have tidied up
        return self.path / str(self._written)


class StoredThing:
    """A file that goes when nobody refers to it any more: a snapshot of the map keeps what the map itself has forgotten."""

    def __init__(self, folder: ScratchFolder, data: bytes) -> None:
        """Raises OSError, and leaves nothing behind."""
        self._folder = folder  # which stands as long as one of its files is wanted
        self.path = folder.new_file()
        try:
            partial = self.path.with_suffix(".partial")
            partial.write_bytes(data)
            os.replace(partial, self.path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def read(self) -> bytes:
        """Raises OSError."""
        return self.path.read_bytes()

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process the folder goes as a whole
            if self._folder.is_ours:
                self.path.unlink(missing_ok=True)


class DiskShelf(Generic[Thing]):
    """Things by index, at most `in_memory` of them in memory."""

    def __init__(self, folder: ScratchFolder, in_memory: int, pack: Callable[[Thing], bytes], unpack: Callable[[bytes], Thing]) -> None:
        self.in_memory, self._folder, self._pack, self._unpack = in_memory, folder, pack, unpack
        self._near: OrderedDict[int, Thing] = OrderedDict()  # used longest ago first
        self._far: dict[int, StoredThing] = {}  # also of those in memory, once they were written

    def __len__(self) -> int:
        return len(self._far.keys() | self._near.keys())

    def __contains__(self, index: object) -> bool:
        return index in self._near or index in self._far

    @property
    def indices(self) -> list[int]:
        return sorted(self._far.keys() | self._near.keys())

    @property
    def on_disk(self) -> int:
        """How many are only there."""
        return len(self._far.keys() - self._near.keys())

    def put(self, index: int, thing: Thing) -> None:
        """A new one, or another one in its place. It stays in memory until `make_room`."""
        self._far.pop(index, None)
        self._near[index] = thing
        self._near.move_to_end(index)

    def get(self, index: int) -> Thing:
        """Raises StorageError for one whose file is gone or damaged: it is forgotten then."""
        if index in self._near:
            self._near.move_to_end(index)
            return self._near[index]
        thing = read(index, self._far[index], self._unpack) if index in self._far else None
        if thing is None:
            self.remove(index)
            raise StorageError(f"keyframe {index} is no longer in {self._folder.place}: nothing but the mapper may remove files there")
        self._near[index] = thing
        while len(self._near) > self.in_memory:  # only those that cost nothing to let go
            del self._near[next(n for n in self._near if n in self._far)]
        return thing

    def remove(self, index: int) -> None:
        self._near.pop(index, None)
        self._far.pop(index, None)

    def make_room(self) -> None:
        """What was used longest ago goes to the disk, until no more than `in_memory` are left.

        Raises StorageError where the disk takes no more: then nothing is lost, and more than that stay in memory.
        """
        while len(self._near) > self.in_memory:
            oldest, thing = next(iter(self._near.items()))
            if oldest not in self._far:
                try:
                    self._far[oldest] = StoredThing(self._folder, self._pack(thing))
                except OSError as error:
                    why = error.strerror or str(error)
                    raise StorageError(
                        f"{self._folder.place} takes no more keyframes: {why}; free some space, or give another disk as map.folder"
                    ) from error
            del self._near[oldest]

    def share(self) -> SharedShelf[Thing]:
        """All as they are now, for another thread: stays readable whatever becomes of the shelf."""
        return SharedShelf({**self._far, **self._near}, self._unpack)


class SharedShelf(Generic[Thing]):
    """What a shelf held at one moment. Files are read when they are asked for, and not kept."""

    def __init__(self, things: dict[int, Thing | StoredThing], unpack: Callable[[bytes], Thing]) -> None:
        self._things, self._unpack = things, unpack

    def get(self, index: int) -> Thing:
        """Raises StorageError for one whose file is gone or damaged."""
        thing = self._things[index]
        if not isinstance(thing, StoredThing):
            return thing
        found = read(index, thing, self._unpack)
        if found is None:
            raise StorageError(f"keyframe {index} cannot be read from {thing.path}: nothing but the mapper may remove files there")
        return found


def read(index: int, stored: StoredThing, unpack: Callable[[bytes], Thing]) -> Thing | None:
    """What is in the file; None, and a line in the log, if it is gone or damaged."""
    try:
        return unpack(stored.read())
    except Exception as error:  # whatever a damaged file makes of itself
        log.warning("keyframe %d cannot be read from %s: %s: %s", index, stored.path, type(error).__name__, error)
        return None


def _remove_abandoned(parent: Path) -> None:
    """Folders of runs that were killed: those that nobody has locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's
            handle = claim(folder / LOCK, create=True) if (folder / LOCK).exists() else None  # else just being made
            if handle is not None:
                _remove(folder, handle, os.getpid())


def _remove(folder: Path, lock: int | None, process: int) -> None:
    if process != os.getpid():
        return
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        with suppress(OSError):
            os.close(lock)
