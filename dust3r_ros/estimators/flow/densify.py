"""Dense depth of a view of a solved window; what was found before stays as long as the new solution agrees with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.dense import DepthMap, Flow
from dust3r_ros.estimators.flow.fusion import CONFIDENCE_AT, fuse
from dust3r_ros.estimators.flow.triangulation import Triangulation, borrow, triangulate
from dust3r_ros.estimators.flow.view import Dense, View

Floats = NDArray[np.float64]

KEEP_WITHIN = 0.15  # pixels that the anchors' projections may move: about the best flow's own error


def densify(
    views: Sequence[View],
    index: int,
    flows: Mapping[tuple[int, int], Flow],
    poses: Floats,
    inverse_depth: Floats,
    older: Sequence[DepthMap],
) -> DepthMap:
    """Depth of view `index` from its `flows` (by pairs of positions in `views`) and the `poses` [V, 4, 4] world to camera.

    `inverse_depth` [N]: the solution at the view's anchors, 0 where unknown. `older`: depth of the views before this one, on this
    solution's scale.
    """
    view = views[index]
    neighbours = [b for a, b in flows if a == index]
    relative = {views[b].digest: poses[b] @ np.linalg.inv(poses[index]) for b in neighbours}
    if view.dense is not None and _still_true(view, view.dense, {views[b].digest: views[b] for b in neighbours}, relative, inverse_depth):
        shrunk = _shrunk(view.dense, inverse_depth)
        return DepthMap(view.dense.map.depth * np.float32(shrunk), view.dense.map.confidence)
    found = []
    for b in neighbours:
        pose = relative[views[b].digest]
        found.append(triangulate(view, views[b], flows[index, b], pose[:3, :3], pose[:3, 3]))
    before = [b for b in neighbours if b < index]
    if before:
        nearest = max(before, key=lambda b: (flows[index, b].overlap, b))
        found.append(_borrowed(view, views[nearest], flows[index, nearest], relative[views[nearest].digest], older[nearest], found))
    known = inverse_depth[inverse_depth > 0]
    depth = fuse(view, found, float(np.median(known)) if len(known) else 1.0)
    view.dense = Dense(depth, relative, inverse_depth.copy())
    return depth


def _borrowed(view: View, other: View, flow: Flow, pose: Floats, depth: DepthMap, own: Sequence[Triangulation]) -> Triangulation:
    """The other view's depth where it is surer than all that the view's own parallax says."""
    sigma = CONFIDENCE_AT / depth.confidence
    sigma[depth.confidence <= 1] = 1
    found = borrow(view, other, flow, pose[:3, :3], pose[:3, 3], depth.depth, sigma)
    surest = np.max([t.precision for t in own], axis=0)
    return Triangulation(found.inverse_depth, np.where(found.precision > surest, found.precision, np.float32(0)))


def _shrunk(dense: Dense, inverse_depth: Floats) -> float:
    """New depths in units of the old: the scale may have been set anew since."""
    both = (dense.anchor_inverse_depth > 0) & (inverse_depth > 0)
    return float(np.median(dense.anchor_inverse_depth[both] / inverse_depth[both])) if both.any() else 1.0


def _still_true(
    view: View, dense: Dense, neighbours: Mapping[bytes, View], relative: Mapping[bytes, Floats], inverse_depth: Floats
) -> bool:
    """Whether all neighbours were there before and see the anchors where the earlier solution saw them.

    A neighbour that has left since is no reason: what it told is still in the depth, and could not be told again.
    """
    if not relative or not set(relative) <= set(dense.relative):
        return False
    both = (dense.anchor_inverse_depth > 0) & (inverse_depth > 0)
    if not both.any():
        return False
    rays = view.anchor_rays[both]
    for digest, new in relative.items():
        before = _project(rays, dense.anchor_inverse_depth[both], dense.relative[digest])
        after = _project(rays, inverse_depth[both], new)
        moved = neighbours[digest].focal * np.linalg.norm(after - before, axis=1)
        if np.median(moved) > KEEP_WITHIN:
            return False
    return True


def _project(rays: Floats, inverse_depth: Floats, relative: Floats) -> Floats:
    moved = rays @ relative[:3, :3].T + inverse_depth[:, None] * relative[:3, 3]
    return moved[:, :2] / np.maximum(moved[:, 2:], 1e-3)
