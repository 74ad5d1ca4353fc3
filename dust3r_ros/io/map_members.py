"""The arrays in a map's file: checked when it is opened, then in memory, or read once more whenever one is asked for."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.mapping.storage.disk_shelf import StorageError

KEYFRAMES = "keyframes/"  # in the names of what is large


class ChecksumError(ValueError):
    """A member that is not what was written."""


class MapMembers:
    """By name. The file may be replaced by another one meanwhile: what was opened stays readable."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, digests: Mapping[str, str], in_memory: bool) -> None:
        """Reads and checks all. `in_memory`: False: keyframes' arrays are not kept. Raises ChecksumError, and zipfile's errors."""
        self._path, self._archive, self._names = path, archive, frozenset(digests)
        self._kept: dict[str, NDArray[Any]] = {}
        for name, digest in digests.items():
            data = archive.read(name)
            if hashlib.sha256(data).hexdigest() != digest:
                raise ChecksumError(f"the checksum of {name} is wrong")
            if in_memory or KEYFRAMES not in name:
                self._kept[name] = _array(data)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Raises KeyError for what there never was, StorageError for what cannot be read any more."""
        if name in self._kept or name not in self._names:
            return self._kept[name]
        try:
            return _array(self._archive.read(name))
        except Exception as error:  # whatever a disk that went away makes of it
            raise StorageError(f"{name} cannot be read from {self._path} any more ({error}): load the map again") from error


def _array(data: bytes) -> NDArray[Any]:
    return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
