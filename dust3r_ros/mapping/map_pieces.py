"""What a camera has seen while it was lost, in pieces of map apart: one grows; those whose own camera was lost wait to be known again.

Each has a frame and a scale of its own. A picture that two maps know joins them: a piece and the map, or two pieces.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import Tokens
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.config import MapConfig, MapperConfig
from dust3r_ros.mapping.following import Following
from dust3r_ros.mapping.keyframes.keyframe_map import KeyframeMap
from dust3r_ros.mapping.keyframes.self_calibration import SelfCalibration
from dust3r_ros.mapping.map_piece import piece_in_map
from dust3r_ros.mapping.places.relocalisation import MIN_ALIKE, Relocalisation
from dust3r_ros.mapping.recovery import TO_A_PIECE
from dust3r_ros.mapping.types import Frame, Keyframe, MapSnapshot, MapUpdate

log = logging.getLogger(__name__)

WAIT = 3  # keyframes of the map after a look among the pieces until the next: it costs as much as a keyframe


class Piece(Protocol):
    """A Mapper that maps nothing apart itself."""

    keyframe_map: KeyframeMap
    following: Following
    calibration: SelfCalibration

    def add(self, frame: Frame) -> MapUpdate: ...

    def go_on_by(self, found: Relocalisation, stamp: int, grey: NDArray[np.uint8], camera: Camera) -> None: ...

    def configure(self, config: MapperConfig) -> None: ...

    def snapshot(self) -> MapSnapshot: ...


@dataclass(frozen=True, eq=False)
class Sighting:
    """A picture as one map knows it."""

    stamp: int
    camera: Camera
    pose: NDArray[np.float64]  # [4, 4] camera to that map's world
    shown: Sequence[Keyframe]  # of that map, which show the same; the picture hangs on the first of them


def sighting(keyframe_map: KeyframeMap, found: Relocalisation, stamp: int, camera: Camera) -> Sighting:
    """Of a picture that was found in a map."""
    assert found.where.pose is not None
    shown = [keyframe for index in found.where.keyframes if (keyframe := keyframe_map.keyframe(index)) is not None]
    return Sighting(stamp, camera, found.where.pose, shown)


class MapPieces:
    """Of one Mapper. Bounded: `map.max_pieces` wait, and together they are no larger than a map may be; the smallest goes first."""

    def __init__(self, new_piece: Callable[[], Piece] | None, config: MapConfig) -> None:
        """`new_piece`: makes an empty Mapper; None: nothing is mapped apart."""
        self._new_piece, self._config = new_piece, config
        self.growing: Piece | None = None
        self.waiting: list[Piece] = []  # oldest first
        self._tries, self._last_try = 0, -WAIT
        self._carried: tuple[MapSnapshot, ...] = ()  # of a saved map, where nothing is mapped apart: saved again as they are

    @property
    def sizes(self) -> tuple[int, ...]:
        """Keyframes of each piece, oldest first; the one that grows last."""
        found = [len(piece.keyframe_map.standpoints) for piece in self._all()]
        return tuple(count for count in (*(len(one.keyframes) for one in self._carried), *found) if count)

    def configure(self, config: MapperConfig) -> None:
        self._config = config.map
        for piece in self._all():
            piece.configure(config)
        self._bound()

    def know(self, readout: float) -> None:
        """The camera's readout (s), as it is known by now."""
        for piece in self._all():
            piece.calibration.readout = readout

    def snapshots(self) -> tuple[MapSnapshot, ...]:
        """Of all pieces, to be saved with the map."""
        return (*self._carried, *(piece.snapshot() for piece in self._all() if piece.keyframe_map.exists))

    def restore(self, snapshots: Sequence[MapSnapshot]) -> None:
        """Those that were saved with the map wait again."""
        if self._new_piece is None:
            self._carried = tuple(snapshots)
            return
        for snapshot in snapshots:
            piece = self._new_piece()
            piece.keyframe_map.restore(snapshot, reopen=False)
            piece.keyframe_map.rest()
            for keyframe in piece.keyframe_map.standpoints.values():
                piece.following.trajectory.append(keyframe.stamp, keyframe.index, np.eye(4))
            self.waiting.append(piece)
        self._bound()

    # ---- while the camera is lost ------------------------------------------------------------------------------------------------------

    def add(self, frame: Frame) -> MapUpdate | None:
        """What is seen makes a piece grow; what it says of this frame. None where nothing is mapped apart."""
        if self._new_piece is None:
            return None
        if self.growing is None:
            self.growing = self._new_piece()
        update = self.growing.add(frame)
        if update.lost_seconds < TO_A_PIECE:
            return update
        self.rest()
        self.growing = self._new_piece()
        return self.growing.add(frame)

    def known(self, update: MapUpdate | None, camera: Camera) -> Sighting | None:
        """The frame that was added just now, as the growing piece knows it."""
        keyframe = None if self.growing is None else self.growing.following.keyframe
        if update is None or update.pose is None or keyframe is None:
            return None
        return Sighting(update.frame.stamp, camera, update.pose, [keyframe])

    def found_in_map(self, keyframe_map: KeyframeMap, following: Following, in_map: Sighting, in_piece: Sighting | None) -> int:
        """The camera is found in the map: the growing piece is joined to it, if it knows the picture too, or waits; what `join` tells."""
        joined = 0
        if self.growing is not None and in_piece is not None:
            joined = join(keyframe_map, following, self.growing, in_map, in_piece)
        if joined:
            self.growing = None
        else:
            self.rest()
        return joined

    def look(self, picture: Tokens, stamp: int, grey: NDArray[np.uint8], camera: Camera, in_piece: Sighting | None) -> None:
        """Where the map does not know the picture, a piece that waits may: the camera goes on there, and what grew is joined to it.

        As `join_beside`, not by a place that the growing piece has twice.
        """
        found = self._among_waiting(picture)
        if found is None:
            return
        piece, where = found
        if in_piece is not None and self.growing is not None:
            if self.growing.keyframe_map.find(picture).ambiguous:
                return
            place = sighting(piece.keyframe_map, where, stamp, picture.camera)
            joined = join(piece.keyframe_map, piece.following, self.growing, place, in_piece)
            if not joined:
                return  # later pictures may tell
            self.growing = None
            log.info("two map pieces are one, of %d keyframes", len(piece.keyframe_map.standpoints))
        self.waiting.remove(piece)
        self.rest()
        self.growing = piece
        piece.go_on_by(where, stamp, grey, camera)

    def rest(self) -> None:
        """The growing piece waits until it is known where it lies."""
        piece, self.growing = self.growing, None
        if piece is None or not piece.keyframe_map.exists:
            return
        piece.keyframe_map.rest()
        self.waiting.append(piece)
        log.info("a map piece of %d keyframes waits to be known again", len(piece.keyframe_map.standpoints))
        self._bound()

    # ---- while the map grows -----------------------------------------------------------------------------------------------------------

    def join_beside(self, keyframe_map: KeyframeMap, following: Following, index: int, picture: Tokens) -> int:
        """The map has a new keyframe: a piece that waits is joined, if it knows its picture; how many keyframes came.

        A place that the map itself has twice says nothing: the piece may be of either.
        """
        keyframe = keyframe_map.keyframe(index)
        if not self.waiting or keyframe is None or index - self._last_try < WAIT:
            return 0
        tries, found = self._tries, self._among_waiting(picture)
        if self._tries != tries or found is not None:  # it cost something
            self._last_try = index
        if found is None or keyframe_map.find(picture).ambiguous:
            return 0
        piece, where = found
        in_piece = sighting(piece.keyframe_map, where, keyframe.stamp, picture.camera)
        joined = join(keyframe_map, following, piece, Sighting(keyframe.stamp, picture.camera, keyframe.pose, [keyframe]), in_piece)
        if joined:
            self.waiting.remove(piece)
            self._last_try = keyframe_map.newest
        return joined

    # ---- how ---------------------------------------------------------------------------------------------------------------------------

    def _among_waiting(self, picture: Tokens) -> tuple[Piece, Relocalisation] | None:
        """One piece is asked at a time, the most alike first: comparing costs as much as in the map."""
        alike = [(piece.keyframe_map.likeness(picture), piece) for piece in self.waiting]
        alike = sorted((entry for entry in alike if entry[0] >= MIN_ALIKE), key=lambda entry: -entry[0])
        if not alike:
            return None
        piece = alike[self._tries % len(alike)][1]
        found = piece.keyframe_map.find(picture)
        self._tries = self._tries + 1 if found.where.pose is None else 0
        return None if found.where.pose is None else (piece, found)

    def _all(self) -> list[Piece]:
        return self.waiting if self.growing is None else [*self.waiting, self.growing]

    def _bound(self) -> None:
        while self.waiting:
            config, keyframes = self._config, [len(piece.keyframe_map.standpoints) for piece in self.waiting]
            points = sum(piece.keyframe_map.settled_points for piece in self.waiting)
            if len(keyframes) <= config.max_pieces and sum(keyframes) <= config.max_keyframes and points <= config.max_points:
                return
            smallest = min(range(len(keyframes)), key=keyframes.__getitem__)  # of equals the oldest
            log.warning(
                "a map piece of %d keyframes is given up: more than %d (map.max_pieces), or more in all than a map may hold "
                "(map.max_keyframes, map.max_points), are not kept",
                keyframes[smallest],
                config.max_pieces,
            )
            del self.waiting[smallest]


def join(keyframe_map: KeyframeMap, following: Following, piece: Piece, in_map: Sighting, in_piece: Sighting) -> int:
    """All of a piece becomes part of a map by a picture that both know; how many keyframes came.

    0, and nothing has changed, where their depths do not say one scale.
    """
    if not in_map.shown or not in_piece.shown:
        return 0
    place = piece_in_map(in_piece.pose, in_piece.shown, in_map.pose, in_map.shown, in_map.camera)
    if place is None:
        return 0
    new = keyframe_map.take_over(piece.keyframe_map, place, in_map.shown[0].index, in_piece.shown[0].index)
    following.trajectory.take_over(piece.following.trajectory, new, but=in_map.stamp)
    return len(new)
