"""Keyframes of one moment whose cameras are fixed to one another: where a camera is follows from the other, and depth from what is known.

A keyframe that is mounted on another has its pose before any pair of it is solved. What is left is the scale of its pairs: by the depths of
a partner that has some, or, where none has, by the way between two known poses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dust3r_ros.alignment.problem import Array
from dust3r_ros.alignment.similarity_fit import fit_similarity
from dust3r_ros.alignment.spanning_tree import score
from dust3r_ros.alignment.start import MIN_KNOWN, Placed
from dust3r_ros.alignment.window_data import Edge, WindowData
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import rotation_angle

ROUNDS = 4  # of the robust fit of a pair's motion
MIN_WAY = 0.08  # of the depth: a pair that goes less tells no scale
SAME_TURN = 0.1  # rad between a pair's own rotation and that of the known poses


def place_mounted(window: WindowData, keyframe: int, predictions: Sequence[PairPrediction]) -> dict[int, Placed]:
    """The mounted keyframe, and partners that have waited for it without depth, in the world.

    `predictions`: of the window, its pairs taken in already. Empty if no pair tells how far things are.
    """
    poses = {n: pose for n in {keyframe, *(n for p in predictions for n in (p.i, p.j))} if (pose := _pose(window, n)) is not None}
    ordered = sorted((p for p in predictions if p.i in poses and p.j in poses), key=score, reverse=True)
    world = {n: _world(window, n) for n in poses if window.nodes[n].depth is not None}
    found: dict[int, Placed] = {}
    for wants_first in (True, False):  # the first image of a pair has its own rays
        for p in ordered:
            edge = window.edges.get((p.i, p.j))
            new = [n for n in ((p.i,) if wants_first else (p.i, p.j)) if n not in world and n not in found]
            scale = None if edge is None or not new else _scale(window, edge, poses, world)
            if edge is None or scale is None:
                continue
            for n in new:
                rotation, position = poses[p.i][:3, :3], poses[p.i][:3, 3]
                points = scale * rotation @ edge.points[n] + position[:, None]
                found[n] = Placed(points, edge.weight[n], poses[n][:3, :3].copy(), poses[n][:3, 3].copy(), _focal(window, n))
    return found if keyframe in found else {}


def _pose(window: WindowData, n: int) -> Array | None:
    """[4, 4] of a keyframe that has a place, or is mounted on one that has."""
    node, mount = window.nodes[n], window.mounts.get(n)
    if node.depth is None:
        on = None if mount is None or mount.on not in window.nodes else window.nodes[mount.on]
        return None if on is None or mount is None or on.depth is None else _matrix(on.rotation, on.position) @ mount.pose
    return _matrix(node.rotation, node.position)


def _matrix(rotation: Array | None, position: Array | None) -> Array:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose


def _world(window: WindowData, n: int) -> Array:
    node = window.nodes[n]
    assert node.rotation is not None
    assert node.position is not None
    return np.asarray(node.rotation @ window.own_points(n) + node.position[:, None])


def _focal(window: WindowData, n: int) -> float:
    """Where none is given: that of what it is mounted on."""
    node = window.nodes[n]
    return node.focal_given if node.focal_given is not None else window.nodes[window.mounts[n].on].focal


def _scale(window: WindowData, edge: Edge, poses: Mapping[int, Array], world: Mapping[int, Array]) -> float | None:
    """World units for one of the pair's; None if nothing tells."""
    i, j = edge.prediction.i, edge.prediction.j
    rotation, position = poses[i][:3, :3], poses[i][:3, 3:]
    ratios = []
    for n in (i, j):
        if n in world:
            known = edge.weight[n] > 0
            there = np.linalg.norm(rotation.T @ (world[n][:, known] - position), axis=0)
            ratios.append(there / np.maximum(np.linalg.norm(edge.points[n][:, known], axis=0), 1e-12))
    if ratios:
        return float(np.median(np.concatenate(ratios))) if sum(map(len, ratios)) >= MIN_KNOWN else None
    return _by_the_way(window, edge, poses)


def _by_the_way(window: WindowData, edge: Edge, poses: Mapping[int, Array]) -> float | None:
    """The known way between the two cameras beside that of the pair, both directions of it together.

    Its length alone: how the pair is turned is better known from itself, and an error of angle would move far points by more than the way.
    """
    i, j = edge.prediction.i, edge.prediction.j
    back = window.edges.get((j, i))
    if back is None:
        return None
    weight = np.minimum(edge.weight[j], back.weight[j])
    if int((weight > 0).sum()) < MIN_KNOWN:
        return None
    rotation, way, scale, _ = fit_similarity(back.points[j], edge.points[j], weight, ROUNDS)
    known = np.linalg.inv(poses[i]) @ poses[j]
    distance = float(np.median(np.linalg.norm(edge.points[j][:, weight > 0], axis=0)))
    gone = float(np.linalg.norm(way))
    if not scale > 0 or gone < MIN_WAY * distance or rotation_angle(rotation.T @ known[:3, :3]) > SAME_TURN:
        return None
    return float(np.linalg.norm(known[:3, 3])) / gone
