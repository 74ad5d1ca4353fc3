"""Between the thread that tracks the camera and the one on which the map grows: what the map found, brought up to the newest image."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from dust3r_ros.mapping.followed import Grey, Reference
from dust3r_ros.mapping.tracking.camera_rate import caught_up
from dust3r_ros.mapping.types import MapUpdate

MAX_SINCE = 64  # tracking images kept since the frame that the map looks at; beyond it every other goes


@dataclass(frozen=True, eq=False)
class Mapped:
    """What came of the frame that the map was asked to look at."""

    reference: Reference | None
    update: MapUpdate | None  # None: it was only asked for the reference, or the frame could not be used


class Handover:
    """What both threads touch. The map looks at one frame at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: list[Grey] | None = None  # tracking images since the one that the map looks at; None: it looks at none
        self._result: Mapped | None = None

    def clear(self) -> None:
        with self._lock:
            self._since, self._result = None, None

    @property
    def is_idle(self) -> bool:
        """Whether the map looks at no frame, and all that it found has been taken."""
        with self._lock:
            return self._since is None and self._result is None

    @property
    def is_busy(self) -> bool:
        """Whether the map looks at a frame."""
        with self._lock:
            return self._since is not None

    # ---- the tracking thread -----------------------------------------------------------------------------------------------------------

    def is_free(self, grey: Grey) -> bool:
        """Whether the map may be asked; if it is at work, the newest tracking image is kept for what it will find."""
        with self._lock:
            if self._since is None:
                return self._result is None  # else it comes with the next frame
            self._since.append(grey)
            if len(self._since) > MAX_SINCE:
                del self._since[:-1:2]
            return False

    def begin(self) -> None:
        """The map looks at the newest frame from now on."""
        with self._lock:
            self._since = []

    def take(self) -> Mapped | None:
        """What the map has found since this was last asked."""
        with self._lock:
            mapped, self._result = self._result, None
        return mapped

    # ---- the mapping thread ------------------------------------------------------------------------------------------------------------

    def correct(self, reference: Reference | None) -> None:
        """The reference is elsewhere, or of another size, and nobody asked: a frame that the map is to look at is still to come."""
        with self._lock:
            self._result = _together(self._result, Mapped(reference, None))

    def publish(self, reference: Reference | None, update: MapUpdate | None) -> None:
        """For the tracking thread, once the points have been followed through the images that came meanwhile."""
        while True:
            with self._lock:
                newer = self._since
                if not newer or reference is None or reference.grey is None or reference.tracks is None:
                    self._result = _together(self._result, Mapped(reference, update))
                    self._since = None
                    return
                self._since = []
            grey, tracks = caught_up(reference.grey, reference.tracks, newer)
            reference = replace(reference, grey=grey, tracks=tracks)


def _together(earlier: Mapped | None, later: Mapped) -> Mapped:
    """What has not been taken over yet, as the map has it now."""
    if earlier is None or earlier.reference is None or later.reference is None or later.reference.tracks is not None:
        return later
    if earlier.reference.index != later.reference.index or earlier.reference.relative is None:
        return later
    relative = earlier.reference.relative.copy()
    relative[:3, 3] *= later.reference.unit / earlier.reference.unit
    reference = replace(
        later.reference, grey=earlier.reference.grey, tracks=earlier.reference.tracks, relative=relative, own=earlier.reference.own
    )
    return Mapped(reference, later.update or earlier.update)
