"""Images of several cameras to sets of one moment, by approximate stamps. A camera that stops does not stop the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

ABSENT = 1_000_000_000  # ns without a picture after which nobody waits for a camera any more
JUMP = 1_000_000_000  # ns back in time that are more than pictures out of order: another run of a bag


@dataclass(eq=False)
class MomentSet(Generic[Item]):
    """Items of one moment, by camera."""

    stamp: int  # ns, of the first that came
    items: dict[str, Item] = field(default_factory=dict)


class SetCollector(Generic[Item]):
    """Items with stamps in, sets out in order of time. All times are the stamps' own, so the same items give the same sets.

    A set is complete when every camera that has been seen lately is in it. One that is not goes out without the others when a complete
    one follows it, or when stamps have gone on by `timeout`. Not thread-safe.
    """

    def __init__(self, cameras: tuple[str, ...], slop: int, timeout: int) -> None:
        """slop: ns by which stamps of one set may differ; timeout: ns that a set waits for those who are late."""
        self._cameras, self._slop, self._timeout = cameras, slop, timeout
        self.restart()

    def restart(self) -> None:
        """Any stamp may come next."""
        self._open: list[MomentSet[Item]] = []
        self._last_seen: dict[str, int] = {}
        self._first: int | None = None
        self._gone = -1  # stamp of the newest set that went out
        self.late = 0  # items whose set had gone already

    def put(self, camera: str, stamp: int, item: Item) -> list[MomentSet[Item]]:
        """The sets, oldest first, that go out because of this item."""
        if stamp < max(self._last_seen.values(), default=stamp) - JUMP:
            self.restart()
        self._first = stamp if self._first is None else self._first
        self._last_seen[camera] = max(stamp, self._last_seen.get(camera, stamp))
        fitting = [one for one in self._open if abs(one.stamp - stamp) <= self._slop and camera not in one.items]
        if fitting:
            min(fitting, key=lambda one: abs(one.stamp - stamp)).items[camera] = item
        elif stamp <= self._gone + self._slop and self._gone >= 0:
            self.late += 1
        else:
            self._open.append(MomentSet(stamp, {camera: item}))
            self._open.sort(key=lambda one: one.stamp)
        return self._due(max(self._last_seen.values()))

    def flush(self) -> list[MomentSet[Item]]:
        """All that waits: nothing has come for a while."""
        return self._out(len(self._open))

    def absent(self) -> tuple[str, ...]:
        """Cameras that have not been seen lately, while others have."""
        now = max(self._last_seen.values(), default=0)
        return tuple(name for name in self._cameras if self._seen(name) < now - ABSENT)

    def _seen(self, name: str) -> int:
        """Stamp of its newest item; of one that has never come, that of the very first item."""
        return self._last_seen.get(name, self._first or 0)

    def _due(self, now: int) -> list[MomentSet[Item]]:
        wanted = {name for name in self._cameras if self._seen(name) >= now - ABSENT}
        due = 0
        for at, one in enumerate(self._open):
            if wanted <= set(one.items) or one.stamp + self._timeout < now:
                due = at + 1
        return self._out(due)

    def _out(self, count: int) -> list[MomentSet[Item]]:
        going, self._open = self._open[:count], self._open[count:]
        if going:
            self._gone = max(self._gone, going[-1].stamp)
        return going
