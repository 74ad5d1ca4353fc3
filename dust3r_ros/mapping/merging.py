"""Two maps in one: keyframes of the second are looked for in the first, a similarity between the maps is agreed upon, all are aligned.

Every keyframe that is found gives a similarity of its own: its pose in both maps, and its depth in both, which gives the scale. The largest
group that agrees is taken. Pairs between the maps then become links as those of a loop do, robustly weighed, and one alignment of the whole
graph lays both maps where all their links agree best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dust3r_ros.alignment import Aligner, Link, SimilarityTable
from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import Estimator
from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.config import MapConfig
from dust3r_ros.mapping.keyframes.window import settled
from dust3r_ros.mapping.places.place_finder import PlaceFinder
from dust3r_ros.mapping.places.placing import Localisation, same_pose, trusted_depth
from dust3r_ros.mapping.points.keyframe_views import compact, keyframe_cloud
from dust3r_ros.mapping.points.saved_map import held_together, owners_of, voxel_size_of
from dust3r_ros.mapping.points.voxel_map import VoxelMap
from dust3r_ros.mapping.types import Keyframe, MapSnapshot, PointCloud

MAX_TRIED = 32  # keyframes of the second map that are looked for in the first
MIN_AGREED = 3  # that must tell of one similarity: two may err together
MIN_SHARE = 0.5  # of those that were found
SAME_SIZE = 0.2  # log: between two scales that tell the same
PAIRS_EACH = 2  # with every keyframe that was found


class MergeError(Dust3rError):
    """Two maps that cannot be joined."""


@dataclass(frozen=True, eq=False)
class Merged:
    """Two maps in one, in the frame and on the scale of the first."""

    snapshot: MapSnapshot  # the second map's keyframes count on from the first's
    to_first: Similarity  # second map's world to the first's, as the keyframes agreed; the alignment bends both a little more
    tried: int  # keyframes of the second map that were looked for
    found: int
    joined: tuple[tuple[int, int], ...]  # pairs of keyframes, one of each map, that hold them together


@dataclass(frozen=True, eq=False)
class _Sighting:
    """A keyframe of the second map that was found in the first."""

    keyframe: Keyframe
    place: Localisation
    to_first: Similarity
    depth: float  # typical of it, in the first map's units


def merge_maps(first: MapSnapshot, second: MapSnapshot, estimator: Estimator, config: MapConfig | None = None) -> Merged:
    """Join `second` to `first`. `config`: voxel size and points at most of the joined map.

    Raises MergeError where too few of the second map's keyframes are found in the first, or where they tell of different places, and for a
    map without keyframes. Either map stays as it is.
    """
    for name, snapshot in (("first", first), ("second", second)):
        if not snapshot.keyframes:
            raise MergeError(f"the {name} map has no keyframes: save it after its second keyframe")
    finder = PlaceFinder(first, estimator)
    tried = _spread(second)
    sightings = [sighting for keyframe in tried if (sighting := _sighting(finder, estimator, keyframe)) is not None]
    if len(sightings) < MIN_AGREED:
        raise MergeError(
            f"{len(sightings)} of {len(tried)} keyframes of the second map were found in the first, {MIN_AGREED} are needed: the maps must "
            "show some place in common, from about the same side"
        )
    to_first, agreed = _agreed(sightings)
    if len(agreed) < max(MIN_AGREED, MIN_SHARE * len(sightings)):
        raise MergeError(
            f"of {len(sightings)} keyframes of the second map that were found in the first only {len(agreed)} tell of one place: the maps "
            "disagree; places look alike, or a map is bent: align the maps before they are saved"
        )
    shift = max([keyframe.index for keyframe in first.keyframes] + list(first.frames)) + 1
    carried = carry(second, to_first, shift)
    moves, links, joined = _align(first, carried, estimator, agreed, shift)
    snapshot = _united(first, carried, moves, links, joined, config or MapConfig())
    return Merged(snapshot, to_first, len(tried), len(sightings), joined)


def carry(snapshot: MapSnapshot, move: Similarity, shift: int = 0) -> MapSnapshot:
    """The same map in another world, its keyframes numbered from `shift` on."""
    frames, links = held_together(snapshot)
    owners = owners_of(snapshot)
    points = move.apply(snapshot.cloud.points).astype(np.float32)
    owner = np.broadcast_to(np.asarray(owners, np.int32), len(points))
    moved = tuple(
        replace(k, index=k.index + shift, pose=move.apply_pose(k.pose), depth=k.depth * np.float32(move.scale)) for k in snapshot.keyframes
    )
    return replace(
        snapshot,
        keyframes=moved,
        edges=tuple((i + shift, j + shift) for i, j in snapshot.edges),
        cloud=replace(snapshot.cloud, points=points),
        window=tuple(index + shift for index in snapshot.window),
        links=tuple(replace(link, i=link.i + shift, j=link.j + shift) for link in links),
        frames={index + shift: move @ frame for index, frame in frames.items()},
        owners=np.where(owner >= 0, owner + shift, -1).astype(np.int32),
    )


# ---- finding ---------------------------------------------------------------------------------------------------------------------------


def _spread(snapshot: MapSnapshot) -> list[Keyframe]:
    """Keyframes to look for, evenly over the map."""
    keyframes = snapshot.keyframes
    return [keyframes[n] for n in np.unique(np.linspace(0, len(keyframes) - 1, min(MAX_TRIED, len(keyframes))).round().astype(int))]


def _sighting(finder: PlaceFinder, estimator: Estimator, keyframe: Keyframe) -> _Sighting | None:
    query = estimator.encode(keyframe.image, keyframe.camera)
    place = finder.place(query, finder.alike(keyframe.image))
    if place.pose is None or place.depth is None or place.confidence is None:
        return None
    there, here = replace(keyframe, camera=query.camera, depth=place.depth, confidence=place.confidence), keyframe
    ratios = _depth_ratios(here, there)
    if ratios is None:
        return None
    scale, depth = float(np.median(ratios)), float(np.median(place.depth[place.depth > 0]))
    rotation = place.pose[:3, :3] @ keyframe.pose[:3, :3].T
    move = Similarity(scale, rotation, place.pose[:3, 3] - scale * rotation @ keyframe.pose[:3, 3])
    return _Sighting(keyframe, place, move, depth)


def _depth_ratios(here: Keyframe, there: Keyframe) -> NDArray[np.float64] | None:
    """[N]: how many times as deep the pixels of `here` are in `there`, the same picture with other pixels."""
    depth, other = trusted_depth(here), trusted_depth(there)
    pixels = there.camera.project(here.camera.unproject(here.camera.pixel_grid()))
    inside = there.camera.contains(pixels)
    columns, rows = np.moveaxis(np.rint(np.where(inside[..., None], pixels, 0.0)).astype(np.int64), -1, 0)
    columns, rows = columns.clip(0, there.camera.width - 1), rows.clip(0, there.camera.height - 1)
    known = inside & (depth > 0) & (other[rows, columns] > 0)
    if known.sum() < 12:
        return None
    return np.asarray(other[rows, columns][known] / depth[known], np.float64)


def _agreed(sightings: Sequence[_Sighting]) -> tuple[Similarity, list[_Sighting]]:
    """The similarity that most tell of, and who does."""
    groups = [[s for s in sightings if _same(one.to_first, s)] for one in sightings]
    best = max(groups, key=len)
    rotation = Rotation.from_matrix(np.stack([s.to_first.rotation for s in best])).mean().as_matrix()
    scale = float(np.exp(np.median([np.log(s.to_first.scale) for s in best])))
    offsets = [s.place.pose[:3, 3] - scale * rotation @ s.keyframe.pose[:3, 3] for s in best if s.place.pose is not None]
    mean = Similarity(scale, rotation, np.median(offsets, axis=0))
    return mean, [s for s in sightings if _same(mean, s)]


def _same(move: Similarity, sighting: _Sighting) -> bool:
    """Whether a similarity puts the keyframe where it was found."""
    assert sighting.place.pose is not None
    size = abs(np.log(move.scale / sighting.to_first.scale))
    return bool(size < SAME_SIZE and same_pose(move.apply_pose(sighting.keyframe.pose), sighting.place.pose, sighting.depth))


# ---- joining ---------------------------------------------------------------------------------------------------------------------------


def _align(
    first: MapSnapshot, second: MapSnapshot, estimator: Estimator, agreed: Sequence[_Sighting], shift: int
) -> tuple[SimilarityTable, list[Link], tuple[tuple[int, int], ...]]:
    """Moves of all keyframes, the links that hold, and the pairs between the maps; `second` lies in the first one's world already."""
    aligner = Aligner()
    frames, links = held_together(first)
    aligner.know(frames, links)
    aligner.know(second.frames, second.links)
    known = {keyframe.index: keyframe for keyframe in (*first.keyframes, *second.keyframes)}
    tried: list[tuple[int, int]] = []
    joined: list[tuple[int, int]] = []
    for sighting in agreed:
        newer = sighting.keyframe.index + shift
        for older in sighting.place.keyframes[:PAIRS_EACH]:
            tokens = {n: estimator.encode(known[n].image, known[n].camera) for n in (older, newer)}
            both = [(older, newer), (newer, older)]
            predictions = [p for p in estimator.estimate(tokens, both) if (p.i, p.j) in both]
            tried.append((older, newer))
            if len(predictions) == len(both):
                joined += aligner.close_loop(predictions, {n: settled(known[n]) for n in (older, newer)})
    correction = aligner.align()
    kept = [pair for pair in joined if pair not in correction.rejected]
    if len({newer for _, newer in kept}) < MIN_AGREED:
        raise MergeError(
            f"of {len(tried)} pairs between the maps {len(joined)} look the same both ways and {len(kept)} go together: the maps disagree; "
            "one of them is bent, or they show places that only look alike"
        )
    return correction.moves, aligner.links, tuple(kept)


def _united(
    first: MapSnapshot,
    second: MapSnapshot,
    moves: SimilarityTable,
    links: list[Link],
    joined: tuple[tuple[int, int], ...],
    config: MapConfig,
) -> MapSnapshot:
    """Both maps as the alignment has moved them. The window is the second's: what comes next goes on from there."""
    voxels = VoxelMap(voxel_size_of(first, config), config.max_points, config.tile_size, config.max_points_per_tile)
    keyframes: list[Keyframe] = []
    for snapshot in (first, second):
        voxels.add(_moved_cloud(snapshot, moves), owners_of(snapshot))
        for keyframe in snapshot.keyframes:
            move = moves.get(keyframe.index, Similarity.identity())
            moved = replace(keyframe, pose=move.apply_pose(keyframe.pose), depth=keyframe.depth * np.float32(move.scale))
            if snapshot is first and keyframe.index in first.window:  # it leaves the window as it would have done on the way
                voxels.add(keyframe_cloud(moved, config.min_confidence), keyframe.index)
                moved = compact(moved)
            keyframes.append(moved)
    frames = {n: moves[n] @ frame if n in moves else frame for n, frame in (*held_together(first)[0].items(), *second.frames.items())}
    edges = (*first.edges, *second.edges, *(edge for i, j in joined for edge in ((i, j), (j, i))))
    whole = replace(first, keyframes=tuple(keyframes), edges=edges, cloud=voxels.cloud(), window=second.window)
    whole = replace(whole, pieces=(*first.pieces, *second.pieces))
    return replace(whole, links=tuple(links), frames=frames, owners=voxels.owners().copy(), voxel_size=voxels.voxel_size)


def _moved_cloud(snapshot: MapSnapshot, moves: SimilarityTable) -> PointCloud:
    """Every point with its owner."""
    points = snapshot.cloud.points.astype(np.float64)
    owners = np.broadcast_to(np.asarray(owners_of(snapshot), np.int32), len(points))
    for owner in np.unique(owners):
        if int(owner) in moves:
            rows = owners == owner
            points[rows] = moves[int(owner)].apply(points[rows])
    return replace(snapshot.cloud, points=points.astype(np.float32))
