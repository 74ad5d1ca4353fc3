"""How the node is doing: counted by the two threads and the callbacks, read by status, diagnostics and the watchdog."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

from dust3r_ros.mapping import MapScale
from dust3r_ros.mapping.types import MapUpdate, TrackingState

RATE_SPAN = 5.0  # seconds over which the frame rate is taken


@dataclass(frozen=True)
class Health:
    """One moment's numbers."""

    tracking: TrackingState | None = None  # None: no image has been handled yet
    reason: str = "no image has come yet"
    paused: bool = False
    fault: bool = False  # the newest image could not be used
    map_fault: str = ""  # why the map could not use the newest image that it was to look at
    stamp: int = 0  # of the newest image, ns
    frame_id: str = ""
    frames: int = 0  # handled since the start or the last reset
    unusable: int = 0  # that raised an error
    stale: int = 0  # with a stamp that was not newer
    keyframes: int = 0
    window: tuple[int, ...] = ()  # indices of the keyframes in the window
    map_points: int = 0
    pieces: tuple[int, ...] = ()  # keyframes of each piece of map that is not joined yet
    model: str = ""
    scale_source: str = "none"
    cameras: dict[str, str] = field(default_factory=dict)  # of a rig: each one's state in words
    lost_seconds: float = 0.0  # since the camera's place was last known; 0 if it is
    scale_uncertainty: float = math.nan
    seconds: dict[str, float] = field(default_factory=dict)  # per stage, of the newest image that went through it


class HealthBook:
    """The newest Health, kept by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = Health()
        self._handled: deque[float] = deque(maxlen=10_000)
        self.last_arrival: float | None = None  # time.monotonic() of the newest image message
        self.arrived = 0  # image messages

    @property
    def now(self) -> Health:
        with self._lock:
            return self._now

    def set(self, **changes: object) -> Health:
        with self._lock:
            self._now = replace(self._now, **changes)  # type: ignore[arg-type]
            return self._now

    def set_numbers(self, scale: MapScale, pieces: tuple[int, ...]) -> None:
        """`pieces`: keyframes of each map piece that is not joined yet."""
        self.set(scale_source=scale.source, scale_uncertainty=scale.uncertainty, pieces=pieces)

    def arrival(self) -> None:
        """An image message has come."""
        self.last_arrival, self.arrived = time.monotonic(), self.arrived + 1

    def handled(self, update: MapUpdate, frame_id: str, again: bool = False) -> None:
        """An image was tracked. `again`: it had been before, and has its place only now."""
        with self._lock:
            now = self._now
            self._now = replace(
                now,
                tracking=update.state,
                reason=now.map_fault or update.reason,
                fault=bool(now.map_fault),
                stamp=update.frame.stamp,
                frame_id=frame_id,
                frames=now.frames + (not again),
                lost_seconds=update.lost_seconds,
                seconds={**now.seconds, **update.seconds},
            )
            if not again:
                self._handled.append(time.monotonic())

    def mapped(self, update: MapUpdate) -> None:
        """What an image brought to the map."""
        with self._lock:
            now = self._now
            window = tuple(keyframe.index for keyframe in update.keyframes) if update.is_keyframe else now.window
            spent = {stage: seconds for stage, seconds in update.seconds.items() if stage != "track"}
            self._now = replace(now, window=window, seconds={**now.seconds, **spent}, map_fault="")

    def unusable(self, reason: str, stale: bool = False, by_map: bool = False) -> None:
        """An image did not. One that was only late is no fault. `by_map`: it was tracked, but the map could not use it."""
        with self._lock:
            now = self._now
            if stale:
                self._now = replace(now, stale=now.stale + 1)
            else:
                self._now = replace(
                    now, unusable=now.unusable + 1, fault=True, reason=reason, map_fault=reason if by_map else now.map_fault
                )

    def rate(self) -> float:
        """Images handled a second, over the last seconds."""
        with self._lock:
            since = time.monotonic() - RATE_SPAN
            recent = [moment for moment in self._handled if moment >= since]
        if len(recent) < 2:
            return len(recent) / RATE_SPAN
        return (len(recent) - 1) / max(time.monotonic() - recent[0], 1e-3)


def resident_memory() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def gpu_memory() -> int:
    """Bytes that torch holds on the graphics card; 0 without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_reserved())
