"""Every keyframe of the map: the window's whole, those that left it compact and most of them on the disk, and of all of them the pose."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment import SimilarityTable
from dust3r_ros.geometry import Camera, Similarity
from dust3r_ros.mapping.places.places import standpoint, typical_depth
from dust3r_ros.mapping.points.keyframe_views import compact
from dust3r_ros.mapping.storage.disk_shelf import DiskShelf, ScratchFolder, StorageError
from dust3r_ros.mapping.storage.index_table import IndexTable
from dust3r_ros.mapping.storage.keyframe_sequence import KeyframeSequence
from dust3r_ros.mapping.types import Keyframe, Standpoint

log = logging.getLogger(__name__)

IN_MEMORY = 500
TOLERATED = 2  # times as many stay in memory where the disk takes no more

Value = TypeVar("Value")


class Picture(NamedTuple):
    """What is large of a keyframe."""

    image: NDArray[np.uint8]  # [h, w, 3] RGB
    depth: NDArray[np.float32]  # [h, w] in the units that the keyframe had when it left the window
    confidence: NDArray[np.float32]  # [h, w] >= 1


@dataclass(frozen=True, eq=False)
class _Card:
    """What is small of a keyframe that left the window."""

    stamp: int
    source: Camera
    camera: Camera
    unit: float  # the keyframe's, when it left
    depth: float  # typical of it, in these units
    name: str  # of its camera, where there are several


class KeyframeStore:
    """Keyframes by index. At most `max_pictures` keep picture and depth, of these `in_memory` in memory; of the others the pose remains."""

    def __init__(self, max_pictures: int, in_memory: int = IN_MEMORY, folder: ScratchFolder | None = None) -> None:
        self.max_pictures = max_pictures
        self.poses: IndexTable[NDArray[np.float64]] = IndexTable((4, 4))
        self.units: IndexTable[float] = IndexTable()  # how many map units a keyframe's own unit has become, where corrections changed it
        self._open: dict[int, Keyframe] = {}  # those that have not left the window
        self._cards: dict[int, _Card] = {}
        self.shelf: DiskShelf[Picture] = DiskShelf(folder or ScratchFolder(), in_memory, _packed, _unpacked)
        self.latest: Mapping[int, Keyframe] = _ByIndex(self, self._keyframe)
        self.standpoints: Mapping[int, Standpoint] = _ByIndex(self, self._standpoint)
        self._next = 0

    def next_index(self) -> int:
        """An index that no keyframe of this map ever had."""
        self._next += 1
        return self._next - 1

    def peek_index(self) -> int:
        """The index that the next keyframe gets."""
        return self._next

    def skip_to(self, index: int) -> None:
        """The next keyframe gets this index, or a later one."""
        self._next = max(self._next, index)

    def put(self, keyframe: Keyframe) -> None:
        """A new keyframe, or a better version of a known one. It stays in memory until it retires."""
        self._forget(keyframe.index)
        self._open[keyframe.index] = keyframe
        self.poses[keyframe.index] = keyframe.pose
        self._next = max(self._next, keyframe.index + 1)

    def retire(self, index: int) -> list[int]:
        """A keyframe has left the window: remember it compactly, and thin out when there are too many. Whose picture and depth went."""
        keyframe = compact(self._open.pop(index))
        unit = self.units.get(index, 1.0)
        self._cards[index] = _Card(keyframe.stamp, keyframe.source, keyframe.camera, unit, typical_depth(keyframe), keyframe.name)
        self.shelf.put(index, Picture(keyframe.image, keyframe.depth, keyframe.confidence))
        return self.thin_out() if len(self) > self.max_pictures else []

    def thin_out(self) -> list[int]:
        """Forget every other picture of the older half, so that what stays is still spread over the whole way; which those were."""
        gone = [n for n in self.indices[: max(len(self), self.max_pictures) // 2][1::2] if n in self._cards]
        for index in gone:
            self._forget(index)
        return gone

    def make_room(self) -> list[int]:
        """Write what has been longest in memory. Whose picture and depth went because the disk does not take them: few at once."""
        try:
            self.shelf.make_room()
        except StorageError as error:
            if len(self.shelf) - self.shelf.on_disk <= TOLERATED * self.shelf.in_memory:
                return []
            gone = self.thin_out()
            log.warning("%s. The map stands; %d old keyframes of %d are remembered without their pictures", error, len(gone), len(self))
            return gone
        return []

    def move(self, moves: Mapping[int, Similarity]) -> None:
        """Keyframes and their depths, each by a similarity of its own."""
        table = moves if isinstance(moves, SimilarityTable) else SimilarityTable(moves)
        indices = table.indices
        indices = indices[self.poses.known(indices)]
        move, poses = table.at(indices), self.poses.at(indices)
        poses[:, :3, 3] = move.scale[:, None] * np.einsum("nij,nj->ni", move.rotation, poses[:, :3, 3]) + move.translation
        poses[:, :3, :3] = move.rotation @ poses[:, :3, :3]
        self.poses.put(indices, poses)
        self.units.put(indices, self.units.at_or(indices, 1.0) * move.scale)
        for index, keyframe in self._open.items():
            if index in table:
                depth = keyframe.depth * np.float32(table[index].scale)
                self._open[index] = replace(keyframe, pose=self.poses[index], depth=depth)

    def count_units(self, units: Mapping[int, float]) -> None:
        """So many map units are these keyframes' own units from now on, counted from another beginning: nothing moves or grows."""
        for index, unit in units.items():
            if index in self._cards:
                card = self._cards[index]
                self._cards[index] = replace(card, unit=card.unit * unit / self.units.get(index, 1.0))
            self.units[index] = unit

    def __len__(self) -> int:
        """Keyframes that keep their picture."""
        return len(self._open) + len(self._cards)

    @property
    def indices(self) -> list[int]:
        """Of those that keep their picture."""
        return sorted([*self._open, *self._cards])

    def all(self) -> Sequence[Keyframe]:
        """As they are now, whatever comes after; those on the disk are read when they are asked for, one at a time."""
        if not self.shelf.on_disk:
            return tuple(self.latest[index] for index in self.indices)
        pictures, cards, opened = self.shelf.share(), dict(self._cards), dict(self._open)
        indices = self.indices
        order = np.array(indices)
        poses = dict(zip(indices, self.poses.at(order), strict=True))
        units = dict(zip(indices, self.units.at_or(order, 1.0).tolist(), strict=True))

        def build(n: int) -> Keyframe:
            return opened[n] if n in opened else _built(n, cards[n], pictures.get(n), poses[n], units[n])

        return KeyframeSequence(indices, build)

    # ---- how -------------------------------------------------------------------------------------------------------------------------

    def _keyframe(self, index: int) -> Keyframe:
        """Raises StorageError, and forgets the keyframe's picture, if somebody took its file away."""
        if index in self._open:
            return self._open[index]
        try:
            picture = self.shelf.get(index)
        except StorageError:
            self._forget(index)
            raise
        return _built(index, self._cards[index], picture, self.poses[index], self.units.get(index, 1.0))

    def _standpoint(self, index: int) -> Standpoint:
        if index in self._open:
            return standpoint(self._open[index])
        card = self._cards[index]
        depth = card.depth * self.units.get(index, 1.0) / card.unit
        return Standpoint(index, card.stamp, self.poses[index], card.source, depth)

    def _forget(self, index: int) -> None:
        self._open.pop(index, None)
        self._cards.pop(index, None)
        self.shelf.remove(index)

    def _has(self, index: object) -> bool:
        return index in self._open or index in self._cards


class _ByIndex(Mapping[int, Value]):
    """What a store has of each keyframe that keeps its picture."""

    def __init__(self, store: KeyframeStore, of: Callable[[int], Value]) -> None:
        self._store, self._of = store, of

    def __getitem__(self, index: int) -> Value:
        if index not in self:
            raise KeyError(index)
        return self._of(index)

    def get(self, index: int, default: Value | None = None) -> Value | None:  # type: ignore[override]
        try:
            return self[index]
        except (KeyError, StorageError):
            return default

    def __contains__(self, index: object) -> bool:
        return self._store._has(index)

    def __iter__(self) -> Iterator[int]:
        return iter(self._store.indices)

    def __len__(self) -> int:
        return len(self._store)


def _built(index: int, card: _Card, picture: Picture, pose: NDArray[np.float64], unit: float) -> Keyframe:
    depth = picture.depth if unit == card.unit else picture.depth * np.float32(unit / card.unit)
    return Keyframe(index, card.stamp, pose, card.source, card.camera, picture.image, depth, picture.confidence, card.name)


def _packed(picture: Picture) -> bytes:
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(array) for name, array in picture._asdict().items()}))


def _unpacked(data: bytes) -> Picture:
    from safetensors.numpy import load

    return Picture(**load(data))
