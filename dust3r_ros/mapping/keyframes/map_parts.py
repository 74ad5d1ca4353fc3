"""All that a map is but for its window: keyframes, the pictures to find them by, points, edges, and what holds it all together."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace

from dust3r_ros.alignment import Aligner, Link
from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.keyframes.keyframe_store import KeyframeStore
from dust3r_ros.mapping.keyframes.map_edges import MapEdges
from dust3r_ros.mapping.places.loops import LoopFinder
from dust3r_ros.mapping.points.map_points import MapPoints
from dust3r_ros.mapping.points.saved_map import GUESSED_INFORMATION, held_together
from dust3r_ros.mapping.scene_graph import Pair
from dust3r_ros.mapping.storage.disk_shelf import StorageError
from dust3r_ros.mapping.types import Keyframe, MapSnapshot


@dataclass(frozen=True, eq=False)
class MapParts:
    """Of one map. Whoever takes them over, saves or loads them knows of its window."""

    store: KeyframeStore
    finder: LoopFinder
    aligner: Aligner
    points: MapPoints
    edges: MapEdges = field(default_factory=MapEdges)

    def take_over(self, piece: MapParts, place: Similarity, anchor: int, nearest: int) -> dict[int, int]:
        """All of a map piece, of which nothing is in a window any more, becomes part of this map; the indices here of its keyframes.

        `place`: the piece's world to this one's. The two hang together by keyframe `anchor` of this map and `nearest` of the piece.
        The piece is used up.
        """
        new = {index: self.store.next_index() for index in sorted(piece.store.poses)}
        for index, pose in piece.store.poses.items():
            self.store.units[new[index]] = place.scale * piece.store.units.get(index, 1.0)
            self.store.poses[new[index]] = place.apply_pose(pose)
            keyframe = None
            with suppress(StorageError):  # its file is gone: its place stays, and half a piece would be worse than that
                keyframe = piece.store.latest.get(index)
            if keyframe is not None:
                depth = keyframe.depth * place.scale
                self.store.put(replace(keyframe, index=new[index], pose=place.apply_pose(pose), depth=depth.astype("float32")))
                with suppress(StorageError):  # without its picture it is not found again, but stays in the map
                    self.finder.remember(new[index], piece.finder.picture(index), piece.finder.camera(index))
                self.shelve(new[index])
        frames = {new[index]: place @ frame for index, frame in piece.aligner.frames.items() if index in new}
        links = [replace(link, i=new[link.i], j=new[link.j]) for link in piece.aligner.links if link.i in new and link.j in new]
        there = self.aligner.frames[anchor].inverse() @ frames[new[nearest]]
        self.aligner.know(frames, [*links, Link(anchor, new[nearest], there, GUESSED_INFORMATION)])
        self.points.take_over(piece.points, place, new)
        self.edges.extend((new[i], new[j]) for i, j in piece.edges if i in new and j in new)
        self.edges.extend([(anchor, new[nearest]), (new[nearest], anchor)])
        return new

    def load(self, snapshot: MapSnapshot) -> None:
        """A saved map, into what is empty. Its keyframes are to be entered into a window or remembered one by one."""
        for keyframe in snapshot.keyframes:
            self.store.put(keyframe)
        self.aligner.know(*held_together(snapshot))
        self.edges.extend(snapshot.edges)
        self.points.load(snapshot)

    def remember(self, keyframe: Keyframe, was_in_window: bool) -> None:
        """One of a saved map that comes into no window. `was_in_window`: its points are not among those of the past yet."""
        if was_in_window:
            self.points.fuse(keyframe)
        self.points.fused.add(keyframe.index)
        self.finder.remember(keyframe.index, keyframe.image, keyframe.camera)
        self.shelve(keyframe.index)

    def snapshot(self, window: tuple[int, ...]) -> MapSnapshot:
        past = self.points.past
        return MapSnapshot(
            self.store.all(),
            tuple(self.edges),
            past.cloud(),
            window,
            links=tuple(self.aligner.links),
            frames=self.aligner.frames,
            owners=past.owners().copy(),
            voxel_size=past.voxel_size,
        )

    def shelve(self, index: int) -> None:
        """A keyframe that is not of the window is remembered compactly, for the most part on the disk."""
        self._forget(self.store.retire(index))
        self.make_room()

    def keep_in_memory(self, keyframes: int) -> None:
        """So many at most; the others are files."""
        self.store.shelf.in_memory = self.finder.shelf.in_memory = keyframes
        self.make_room()

    def make_room(self) -> None:
        gone = self.store.make_room()
        with suppress(StorageError):  # the store has said so
            self.finder.shelf.make_room()
        self._forget(gone)

    def disconnect(self, rejected: set[Pair]) -> None:
        """These pairs, (lower, higher), contradict the rest: their edges go."""
        if rejected:
            self.edges.discard(rejected)

    def _forget(self, gone: list[int]) -> None:
        if gone:
            self.finder.forget(set(gone))
