"""What services and settings ask of the map: to begin anew, to stand still, to be aligned, saved, replaced. Done on the mapping thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from dust3r_ros_msgs.msg import MapTiles

from dust3r_ros.estimators import Estimator
from dust3r_ros.mapping import Localiser, Mapper, MapSnapshot, TrackingState
from dust3r_ros.ros.errors import RosError
from dust3r_ros.ros.health import HealthBook
from dust3r_ros.ros.intake import Intake
from dust3r_ros.ros.placement import Placement
from dust3r_ros.ros.publishers import MapPublishers
from dust3r_ros.ros.rig_input import RigInput
from dust3r_ros.ros.two_threads import TwoThreads


class MapCommands:
    """Each answers with what was done, in one line, or raises an error of one line; then the map stands."""

    def __init__(
        self,
        threads: TwoThreads,
        book: HealthBook,
        publishers: MapPublishers,
        placement: Placement,
        intake: Intake | RigInput,
        new_mapper: Callable[[Estimator], Mapper | Localiser],
    ) -> None:
        """`new_mapper(estimator)`: with an empty map, as the settings are now."""
        self._threads, self._book, self._publishers = threads, book, publishers
        self._placement, self._intake, self._new_mapper = placement, intake, new_mapper

    def do(self, job: Callable[[], Any]) -> Future[Any]:
        """From any thread: have one of these done."""
        return self._threads.mapping.submit(job)

    def reset_map(self) -> str:
        with self._threads.camera:
            return self._reset(self._threads.mapper)

    def _reset(self, mapper: Mapper | Localiser) -> str:
        mapper.reset()
        self._threads.restart()
        self._book.set_numbers(mapper.scale, mapper.pieces)
        if isinstance(mapper, Localiser):  # only where the camera is has been forgotten
            self._restarted(same_map_frame=True)
            self._book.set(frames=0, tracking=mapper.state, reason="reset", fault=False, map_fault="")
            return "the map stands; the camera is looked for anew in the next image"
        self._restarted(same_map_frame=False)
        self._book.set(
            frames=0, keyframes=0, window=(), map_points=0, tracking=TrackingState.INITIALISING, reason="reset", fault=False, map_fault=""
        )
        return "the map is empty; it starts anew with the next image"

    def pause(self, paused: bool) -> str:
        self._book.set(paused=paused)
        if paused:
            self._threads.clear()
            return "paused: images are not looked at, the map stands"
        return "going on"

    def align_map(self) -> str:
        revised = self._threads.mapper.align()
        if not revised:
            raise RosError("there is no map to align yet: the camera has to move first")
        self._threads.refresh()
        self._publishers.changed()
        return f"{len(revised)} keyframes aligned"

    def snapshot_map(self) -> MapSnapshot:
        return self._threads.snapshot()

    def map_tiles(self) -> MapTiles:
        return self._publishers.all_tiles(self._threads.mapper)

    def read_map(self, path: Path) -> MapSnapshot:
        """From a file, on any thread. A map that a camera is only localised in stays there for the most part."""
        from dust3r_ros.io.map_file import load_map

        return load_map(path, in_memory=not isinstance(self._threads.mapper, Localiser))

    def replace_map(self, snapshot: MapSnapshot) -> str:
        """The running map stands until the new one is whole."""
        mapper = self._new_mapper(self._threads.mapper.estimator)
        if snapshot.keyframes:
            mapper.restore(snapshot)
        with self._threads.camera:
            self._threads.take(mapper)
            return self._replaced(mapper, snapshot)

    def _replaced(self, mapper: Mapper | Localiser, snapshot: MapSnapshot) -> str:
        self._book.set_numbers(mapper.scale, mapper.pieces)
        last = snapshot.keyframes[-1].index if snapshot.keyframes else -1
        self._restarted(True, snapshot.window, last)
        count = len(snapshot.keyframes)
        self._book.set(
            keyframes=count, window=snapshot.window, tracking=mapper.state, reason="a saved map was loaded", fault=False, map_fault=""
        )
        return f"a map of {count} keyframes loaded"

    def _restarted(self, same_map_frame: bool, window: tuple[int, ...] = (), last_index: int = -1) -> None:
        self._intake.restart()
        self._placement.restarted(same_map_frame)
        self._publishers.restarted(window, last_index)
