"""A saved map as the alignment and the voxels take it up again, and as one cloud."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dust3r_ros.alignment import Link
from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.config import MapConfig
from dust3r_ros.mapping.points.floaters import without_floaters
from dust3r_ros.mapping.points.keyframe_views import keyframe_cloud
from dust3r_ros.mapping.points.voxel_map import SHARE, VoxelMap
from dust3r_ros.mapping.storage.keyframe_sequence import KeyframeSequence
from dust3r_ros.mapping.types import Keyframe, MapSnapshot, PointCloud

# How firmly the keyframes of a map hold together that was saved without its links: rotation, translation, log scale.
GUESSED_INFORMATION = np.diag(1.0 / np.array([0.01] * 3 + [0.02] * 3 + [0.02]) ** 2)


def held_together(snapshot: MapSnapshot) -> tuple[dict[int, Similarity], list[Link]]:
    """Every keyframe's own frame to the world's, and the links between them: those that were saved, or guessed from the pairs."""
    poses = {keyframe.index: keyframe.pose for keyframe in snapshot.keyframes}
    frames = dict(snapshot.frames)
    for index, pose in poses.items():
        frames[index] = Similarity(frames[index].scale if index in frames else 1.0, pose[:3, :3], pose[:3, 3])
    if snapshot.links:
        return frames, list(snapshot.links)
    joined = {(min(pair), max(pair)) for pair in snapshot.edges if pair[0] in poses and pair[1] in poses}
    # Keyframes whose neighbours were thinned out would hang on nothing.
    joined.update(zip(sorted(poses), sorted(poses)[1:], strict=False))
    return frames, [Link(i, j, frames[i].inverse() @ frames[j], GUESSED_INFORMATION) for i, j in sorted(joined)]


def owners_of(snapshot: MapSnapshot) -> NDArray[np.int32] | int:
    """[N] the keyframe that each point of the cloud moves with: as saved, or the nearest; -1 where there is none."""
    if snapshot.owners is not None:
        return snapshot.owners
    if not len(snapshot.cloud) or not snapshot.keyframes:
        return -1
    order = np.array([keyframe.index for keyframe in snapshot.keyframes], np.int32)
    places = np.stack([keyframe.pose[:3, 3] for keyframe in snapshot.keyframes])
    return np.asarray(order[cKDTree(places).query(snapshot.cloud.points)[1]], np.int32)


def voxel_size_of(snapshot: MapSnapshot, config: MapConfig) -> float:
    """As it is set, or else as it was when the map was saved, or else by its oldest keyframe."""
    if config.voxel_size or snapshot.voxel_size:
        return config.voxel_size or snapshot.voxel_size
    depths = (keyframe.depth[keyframe.depth > 0] for keyframe in snapshot.keyframes)
    return SHARE * next((float(np.median(depth)) for depth in depths if len(depth)), 1.0)


def whole_voxels(snapshot: MapSnapshot, config: MapConfig) -> VoxelMap:
    """The points of all keyframes, those of the window too."""
    voxels = VoxelMap(voxel_size_of(snapshot, config), config.max_points, config.tile_size, config.max_points_per_tile)
    voxels.add(snapshot.cloud, owners_of(snapshot))
    window = _window_of(snapshot)
    for keyframe in without_floaters(window, range(len(window))) if window and config.remove_floaters else window:
        voxels.add(keyframe_cloud(keyframe, config.min_confidence), keyframe.index)
    return voxels


def _window_of(snapshot: MapSnapshot) -> list[Keyframe]:
    """Oldest first. Looked for from the newest back: the others may have to be read from a file."""
    left, found = set(snapshot.window), list[Keyframe]()
    for keyframe in reversed(snapshot.keyframes):
        if not left:
            break
        if keyframe.index in left:
            left.remove(keyframe.index)
            found.insert(0, keyframe)
    return found


def grown(snapshot: MapSnapshot, factor: float) -> MapSnapshot:
    """The same map, so many times as large about its origin. Its keyframes are made when they are asked for: nothing is held twice."""
    world, keyframes = Similarity(factor, np.eye(3), np.zeros(3)), snapshot.keyframes

    def larger(n: int) -> Keyframe:
        one = keyframes[n]
        return replace(one, pose=world.apply_pose(one.pose), depth=one.depth * np.float32(factor))

    return replace(
        snapshot,
        keyframes=KeyframeSequence(range(len(keyframes)), larger),
        cloud=replace(snapshot.cloud, points=snapshot.cloud.points * np.float32(factor)),
        frames={index: world @ frame for index, frame in snapshot.frames.items()},
        voxel_size=factor * snapshot.voxel_size,
    )


def whole_cloud(snapshot: MapSnapshot, config: MapConfig | None = None) -> PointCloud:
    """The whole map, one point a voxel of `config.voxel_size`, at most `config.max_points` of them."""
    return whole_voxels(snapshot, config or MapConfig()).cloud()
