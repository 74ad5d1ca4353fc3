"""The node's two threads and what each owns: one tracks the camera and says where it is, the other has the Mapper and tells of the map."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from dust3r_ros.mapping import LiveTracking, Localiser, Mapper, MapSnapshot, MapUpdate, RigMapper
from dust3r_ros.mapping.config import MapperConfig
from dust3r_ros.ros.urgency import give_way
from dust3r_ros.ros.worker import Worker


@dataclass(frozen=True)
class Listener:
    """Whom the threads tell."""

    motion: Callable[[MapUpdate], None]  # an image's pose, at once. The camera's place is held meanwhile
    tracked: Callable[[MapUpdate, bool], None]  # an image was; True: it had been before, and has its pose only now
    map: Callable[[MapUpdate | None], None]  # on the mapping thread: what an image has changed; None: all has moved
    before_mapping: Callable[[], None]  # on the mapping thread
    failure: Callable[[Exception, bool], None]  # True: while mapping


class TwoThreads:
    """A Mapper and a Localiser with a map are tracked in front of; a rig tracks by itself, on the mapping thread."""

    def __init__(
        self, mapper: Mapper | Localiser, track: Callable[[Any], None], map_at_once: Callable[[Any], None], listener: Listener
    ) -> None:
        """`track(message)`: on the tracking thread, ends in `follow`; `map_at_once(frame)`: on the mapping thread."""
        self._listener = listener
        self.camera = threading.RLock()  # held where an image is tracked and told, and where the map under it is replaced
        self.front: LiveTracking | None = None
        self._gives_way = False
        self.tracking: Worker[Any] = Worker(track, lambda error: listener.failure(error, False), "tracking")
        self.mapping: Worker[Any] = Worker(map_at_once, lambda error: listener.failure(error, True), "mapping")
        self.take(mapper)

    def stop(self) -> bool:
        """Both, also where the first does not end. False if the estimator is still busy."""
        return all([self.tracking.stop(), self.mapping.stop()])

    def let_go(self) -> None:
        """Of the map and its estimator, when they have been stopped."""
        self.front = None
        del self.mapper

    def clear(self) -> None:
        """Images that wait are forgotten."""
        self.tracking.clear()
        self.mapping.clear()

    @property
    def is_idle(self) -> bool:
        """Whether all images that came in have been told of, and the map has done what they asked of it."""
        return self.tracking.is_idle and self.mapping.is_idle and (self.front is None or self.front.is_idle)

    @property
    def dropped(self) -> int:
        """Images overtaken by newer ones."""
        return self.tracking.dropped + self.mapping.dropped

    # ---- images ----------------------------------------------------------------------------------------------------------------------

    def follow(self, frame: Any) -> None:
        """On the tracking thread."""
        if self.front is None:
            self.mapping.offer(frame)
            return
        with self.camera:
            self._listener.tracked(self.front.add(frame, self._listener.motion), False)

    def _have_mapped(self, job: Callable[[], None]) -> None:
        def look() -> None:
            try:
                self._listener.before_mapping()
            finally:  # whoever asked waits for it, and asks for nothing else meanwhile
                job()

        self.mapping.submit(look).add_done_callback(self._mapping_done)

    def _mapped(self, update: MapUpdate | None) -> None:
        self._listener.map(update)
        self.tracking.submit(self._take_over).add_done_callback(self._mapping_done)  # also when no other image comes

    def _take_over(self) -> None:
        with self.camera:
            update = None if self.front is None else self.front.take_over()
            if update is not None:
                self._listener.motion(update)
                self._listener.tracked(update, True)

    def _mapping_done(self, done: Future[Any]) -> None:
        if not done.cancelled() and isinstance(error := done.exception(), Exception):
            self._listener.failure(error, True)
            self.tracking.submit(self._take_over)

    # ---- the map, on its thread ------------------------------------------------------------------------------------------------------

    def take(self, mapper: Mapper | Localiser) -> None:
        """What comes next is tracked in this map."""
        with self.camera:
            if self.front is not None:
                self.front.abandon()
            self.mapper = mapper
            waits = isinstance(mapper, Localiser) and not mapper.standpoints  # for a map to localise in, and says so
            by_itself = waits or isinstance(mapper, RigMapper)
            self.front = None if by_itself else LiveTracking(mapper, self._have_mapped, self._mapped)
        # A thread cannot be made more urgent again. But for a rig's, whose node has no other Mapper, it tracks nothing.
        if not isinstance(mapper, RigMapper) and not self._gives_way:
            self._gives_way = True
            self.mapping.submit(give_way)

    def restart(self) -> None:
        """The map began anew."""
        if self.front is not None:
            self.front.restart()

    def refresh(self) -> None:
        """The map has moved."""
        if self.front is not None:
            self.front.refresh()

    def configure(self, config: MapperConfig) -> None:
        if self.front is not None:
            self.front.configure(config)

    def snapshot(self) -> MapSnapshot:
        self.hand_in()
        return self.mapper.snapshot()

    def hand_in(self) -> None:
        """The Mapper is told of the images that were tracked since."""
        if self.front is not None:
            self.front.hand_in()
