"""Where a map piece, which grew on its own while the camera was lost, lies in the map: its frame and scale are its own.

One picture that both know says it: its pose in either, and the depth of what it shows in either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dust3r_ros.geometry import Camera, Similarity, inverse_pose, transform_points
from dust3r_ros.mapping.places.placing import trusted_depth
from dust3r_ros.mapping.types import Keyframe

MIN_SHARED = 50  # pixels whose depth both know
SAME_SCALE, MIN_SAME = 0.1, 0.5  # share of the scale within which depths agree; share of the pixels that must
REACH = 1.5  # pixels of the coarser keyframe between points that are compared

Pose = NDArray[np.float64]


def piece_in_map(
    in_piece: Pose, shown_in_piece: Sequence[Keyframe], in_map: Pose, shown_in_map: Sequence[Keyframe], camera: Camera
) -> Similarity | None:
    """From the piece's world to the map's: by a picture of `camera`, its poses (4x4, camera to world) and keyframes that see the same.

    None where the depths do not say one scale.
    """
    ours, theirs = _seen(in_piece, shown_in_piece, camera), _seen(in_map, shown_in_map, camera)
    if not len(ours) or not len(theirs):
        return None
    reach = REACH * max(camera.width / keyframe.camera.width for keyframe in (*shown_in_piece, *shown_in_map))
    distance, nearest = cKDTree(theirs[:, :2]).query(ours[:, :2], distance_upper_bound=max(reach, 1.0))
    both = np.asarray(np.isfinite(distance))
    if int(both.sum()) < MIN_SHARED:
        return None
    ratio = theirs[np.asarray(nearest)[both], 2] / ours[both, 2]
    scale = float(np.median(ratio))
    if np.mean(np.abs(ratio / scale - 1.0) <= SAME_SCALE) < MIN_SAME:
        return None
    rotation = in_map[:3, :3] @ in_piece[:3, :3].T
    return Similarity(scale, rotation, in_map[:3, 3] - scale * rotation @ in_piece[:3, 3])


def _seen(pose: Pose, keyframes: Sequence[Keyframe], camera: Camera) -> NDArray[np.float64]:
    """[N, 3] pixel and depth of the keyframes' points that fall into the picture."""
    found = []
    for keyframe in keyframes:
        depth = trusted_depth(keyframe)
        known = depth > 0
        own = keyframe.camera.rays()[known].astype(np.float64) * depth[known][:, None]
        points = transform_points(inverse_pose(pose) @ keyframe.pose, own)
        points = points[points[:, 2] > 0]
        pixels = camera.project(points)
        inside = np.isfinite(pixels).all(1) & camera.contains(np.nan_to_num(pixels, nan=-1e6))
        found.append(np.column_stack([pixels[inside], points[inside, 2]]))
    return np.concatenate(found) if found else np.zeros((0, 3))
