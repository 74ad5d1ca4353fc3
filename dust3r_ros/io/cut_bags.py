"""What can still be read of a rosbag2 that was cut short or never closed: power lost, disk full, recorder killed.

A whole bag is read through its index and metadata.yaml, which are written last. Here its files are walked from their start, record by
record (mcap.dev/spec; sqlite's own pages), until they end. Slower, and it needs neither.
"""

from __future__ import annotations

import logging
import sqlite3
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

log = logging.getLogger(__name__)

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK = 0x03, 0x04, 0x05, 0x06
HEAD = struct.Struct("<BQ")  # operation, length
CHUNK_HEAD = struct.Struct("<QQQII")  # first and last stamp, size unpacked, its CRC, length of the compression's name
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, number, logged and published stamp

Stored = tuple["Topic", int, bytes]


@dataclass(frozen=True)
class Topic:
    """As rosbags' Connection, as far as it is asked for here."""

    topic: str
    msgtype: str
    msgcount: int = 0


class CutBag:
    """The messages of the .mcap and .db3 files at `path` (one of them, or the folder), file by file, each in the order of recording.

    Stands in for rosbags' AnyReader. `connections` is empty if nothing can be read.
    """

    def __init__(self, path: Path) -> None:
        from rosbags.typesys import Stores, get_typestore

        found = path.iterdir() if path.is_dir() else [path]
        # bag_10 comes after bag_2
        self._files = sorted((file for file in found if file.suffix in (".mcap", ".db3")), key=lambda file: (len(file.name), file.name))
        self._said: set[Path] = set()
        self._types = get_typestore(Stores.ROS2_KILTED)
        counts = Counter((topic.topic, topic.msgtype) for topic, _, _ in self._all(quiet=True))
        self.connections = [Topic(name, kind, count) for (name, kind), count in sorted(counts.items())]

    def messages(self, connections: Collection[Any]) -> Iterator[Stored]:
        """(topic, stamp in ns, serialised message) of the given topics."""
        wanted = {entry.topic for entry in connections}
        return (stored for stored in self._all() if stored[0].topic in wanted)

    def deserialize(self, data: bytes, kind: str) -> Any:
        return self._types.deserialize_cdr(data, kind)

    def close(self) -> None:
        """Nothing stays open."""

    def _all(self, quiet: bool = False) -> Iterator[Stored]:
        for file in self._files:
            count = 0
            try:
                for stored in _from_mcap(file) if file.suffix == ".mcap" else _from_sqlite(file):
                    count += 1
                    yield stored
            except (sqlite3.Error, OSError, ValueError, struct.error) as error:
                if not quiet and file not in self._said:
                    self._said.add(file)
                    log.warning("%s: nothing more can be read after %d messages: %s", file, count, " ".join(str(error).split()))


def _from_sqlite(file: Path) -> Iterator[Stored]:
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        database.execute("PRAGMA writable_schema=ON")  # else a file shorter than its header says is refused as a whole; nothing is written
        topics = {number: Topic(name, kind) for number, name, kind in database.execute("SELECT id, name, type FROM topics")}
        for number, stamp, data in database.execute("SELECT topic_id, timestamp, data FROM messages"):
            if number in topics:
                yield topics[number], stamp, data


def _from_mcap(file: Path) -> Iterator[Stored]:
    kinds: dict[int, str] = {}
    topics: dict[int, Topic] = {}
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise ValueError("it is no mcap file")
        for operation, body in _records(stream, file.stat().st_size):
            if operation == SCHEMA:
                number, name = _numbered_text(body, 0)
                kinds[number] = name
            elif operation == CHANNEL:
                number = int.from_bytes(body[:2], "little")
                kind, name = _numbered_text(body, 2)
                topics[number] = Topic(name, kinds.get(kind, ""))
            else:
                channel, _, stamp, _ = MESSAGE_HEAD.unpack_from(body)
                if channel in topics:
                    yield topics[channel], stamp, body[MESSAGE_HEAD.size :]


def _records(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Whole schemas, channels and messages, those inside chunks too, up to the end or to where the file was cut."""
    while len(head := stream.read(HEAD.size)) == HEAD.size:
        operation, length = HEAD.unpack(head)
        body_at = stream.tell()
        if operation == CHUNK:
            yield from _in_chunk(stream.read(min(length, size - body_at)))
        elif operation in (SCHEMA, CHANNEL, MESSAGE) and body_at + length <= size:
            yield operation, stream.read(length)
        if body_at + length > size:
            return
        stream.seek(body_at + length)


def _in_chunk(chunk: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of a chunk; the whole ones at its start if it was cut and is not compressed, none if it is damaged otherwise."""
    from rosbags.rosbag2.storage_mcap import decompress

    if len(chunk) < CHUNK_HEAD.size:
        return
    _, _, unpacked, checksum, name_length = CHUNK_HEAD.unpack_from(chunk)
    start = CHUNK_HEAD.size + name_length + 8
    name = chunk[CHUNK_HEAD.size : CHUNK_HEAD.size + name_length].decode("ascii", "replace")
    packed = chunk[start:]
    if name or len(packed) == unpacked:
        try:
            packed = decompress(packed, name, unpacked, checksum)
        except Exception as error:  # whatever its library says of damaged data
            log.warning("a chunk with messages is damaged and left out: %s", " ".join(str(error).split()))
            return
    at = 0
    while at + HEAD.size <= len(packed):
        operation, length = HEAD.unpack_from(packed, at)
        at += HEAD.size
        if operation in (SCHEMA, CHANNEL, MESSAGE) and at + length <= len(packed):
            yield operation, packed[at : at + length]
        at += length


def _numbered_text(body: bytes, at: int) -> tuple[int, str]:
    """A number of two bytes and the text behind it."""
    number, length = struct.unpack_from("<HI", body, at)
    return number, body[at + 6 : at + 6 + length].decode()
