"""The joint solution of a window of views: first poses, bundle adjustment, one scale, dense depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.flow.bundle import adjust
from dust3r_ros.estimators.flow.bundle_equations import POINT_SIGMA, Observations
from dust3r_ros.estimators.flow.correspondence import corresponding_rays
from dust3r_ros.estimators.flow.dense import DepthMap
from dust3r_ros.estimators.flow.densify import densify
from dust3r_ros.estimators.flow.graph import Graph, components, graph_of
from dust3r_ros.estimators.flow.pair_pose import pair_pose
from dust3r_ros.estimators.flow.view import Solved, View

Floats = NDArray[np.float64]

PLACING_ITERATIONS = 4
FINAL_ITERATIONS = 8
UNDETERMINED = 0.5  # relative sigma of a new inverse depth that is not kept
BORROWED_CONFIDENCE = 1.5  # of the dense depth, for an anchor to take it
NEAR, FAR = 20.0, 0.02  # inverse depth is kept between these multiples of its median


@dataclass(frozen=True, eq=False)
class WindowSolution:
    poses: Floats  # [V, 4, 4] world to camera
    depth: list[DepthMap]
    component: NDArray[np.int64]  # [V] views with the same number share one scale and one world
    matched: frozenset[tuple[int, int]]  # views that see each other, both ways round; others of a component are joined through these


def solve_window(views: Sequence[View], edges: Sequence[tuple[int, int]], new_chain: int) -> WindowSolution:
    """Solve the views (oldest first) over `edges` (unordered pairs of their positions).

    The solution stays in the views as the next call's warm start. Views that never solved together with an earlier call start the
    chains `new_chain`, `new_chain + 1`, ...
    """
    graph = graph_of(views, edges)
    component = components(len(views), graph.flows)
    poses = np.repeat(np.eye(4)[None], len(views), 0)
    rho = np.zeros(graph.observations.rays.shape[:2])
    chains: dict[int, int] = {}
    for number in np.unique(component):
        members = np.flatnonzero(component == number)
        chain = _solve_component(graph, members, poses, rho, new_chain + int(number))
        chains.update(dict.fromkeys(members.tolist(), chain))
    depth: list[DepthMap] = []
    for index, view in enumerate(views):
        anchors = rho[index, : len(view.anchors)]
        depth.append(densify(views, index, graph.flows, poses, anchors, depth))
        view.solved = Solved(chains[index], poses[index].copy(), _completed(view, anchors, depth[-1]))
    return WindowSolution(poses, depth, component, frozenset(graph.flows))


def _solve_component(graph: Graph, members: NDArray[np.int64], poses: Floats, rho: Floats, new_chain: int) -> int:
    """Fill in `poses` and `rho` of the members, from their warm start where they have one; the number of their chain."""
    chain, warm = _warm_start(graph, members, poses, rho, new_chain)
    before = rho.copy()
    placed = list(warm) if warm else [int(members[0])]
    waiting = [int(m) for m in members if m not in placed]
    while waiting:
        chosen = next(m for m in waiting if any((p, m) in graph.flows for p in placed))
        waiting.remove(chosen)
        _place(graph, chosen, placed, poses, rho)
        placed.append(chosen)
        _triangulate_anchors(graph, placed, poses, rho)
        if waiting:
            _adjust(graph, placed, poses, rho, before, PLACING_ITERATIONS)
    if len(placed) > 1:
        _adjust(graph, sorted(placed), poses, rho, before, FINAL_ITERATIONS)
        _drop_undetermined(graph, placed, poses, rho, before)
        _keep_scale(members, poses, rho, before)
    return chain


def _completed(view: View, anchors: Floats, depth: DepthMap) -> Floats:
    """Inverse depth of the anchors [N]; those without parallax take what the dense depth borrowed from other views."""
    rows, columns = view.anchor_index
    borrowed = np.where(depth.confidence[rows, columns] > BORROWED_CONFIDENCE, 1 / depth.depth[rows, columns].astype(float), 0)
    return np.where(anchors > 0, anchors, borrowed)


def _warm_start(graph: Graph, members: NDArray[np.int64], poses: Floats, rho: Floats, new_chain: int) -> tuple[int, list[int]]:
    """Take over what earlier calls found, of the chain that most members belong to."""
    solved = {int(m): graph.views[m].solved for m in members}
    chains = [s.chain for s in solved.values() if s is not None]
    if not chains:
        return new_chain, []
    chain = max(sorted(set(chains)), key=chains.count)
    warm = []
    for member, found in solved.items():
        if found is not None and found.chain == chain:
            poses[member] = found.pose
            rho[member, : len(found.anchor_inverse_depth)] = found.anchor_inverse_depth
            warm.append(member)
    return chain, warm


def _place(graph: Graph, new: int, placed: Sequence[int], poses: Floats, rho: Floats) -> None:
    """First pose of a view from the placed one that shares most with it; the baseline from the depths known there."""
    near = max((p for p in placed if (p, new) in graph.flows), key=lambda p: (graph.flows[p, new].overlap, p))
    view, other = graph.views[near], graph.views[new]
    flow = graph.flows[near, new]
    found = pair_pose(*corresponding_rays(view, other, flow), other.focal)
    relative = np.eye(4)
    if found is not None:
        relative[:3, :3] = found.rotation
        relative[:3, 3] = found.translation * _baseline(graph, near, new, found.rotation, found.translation, rho[near])
    poses[new] = relative @ poses[near]


def _linear(graph: Graph, pair: int, rotation: Floats, translation: Floats) -> tuple[Floats, Floats]:
    """`A.B` and `A.A` of the anchors along a directed pair, [N] each: their quotient is the inverse depth."""
    o = graph.observations
    turned = o.rays[o.pairs[pair, 0]] @ rotation.T
    a = translation[:2] - o.seen[pair] * translation[2]
    b = o.seen[pair] * turned[:, 2:] - turned[:, :2]
    return np.sum(a * b, 1), np.sum(a * a, 1)


def _baseline(graph: Graph, near: int, new: int, rotation: Floats, translation: Floats, known: Floats) -> float:
    """Length of the translation that makes the pair's depths those already known; 1 where none are."""
    o = graph.observations
    pair = int(np.flatnonzero((o.pairs[:, 0] == near) & (o.pairs[:, 1] == new))[0])
    dot, squared = _linear(graph, pair, rotation, translation)
    use = (o.weight[pair] > 0) & (known > 0) & (dot > 0)
    if np.count_nonzero(use) < 5 or not translation.any():
        return 1.0
    return weighted_median(dot[use] / squared[use] / known[use], o.weight[pair][use] * np.sqrt(squared[use]) * known[use])


def weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _triangulate_anchors(graph: Graph, placed: Sequence[int], poses: Floats, rho: Floats) -> None:
    """Inverse depth of the anchors that have none yet, from all placed views that see them."""
    dots, squares = _normal_equations(graph, placed, poses)
    found = np.where(squares > 1e-6, dots / np.maximum(squares, 1e-6), 0)
    fresh = (rho == 0) & (squares > 1e-6)
    good = found[fresh & (found > 0)]
    old = rho[list(placed)]
    if np.any(old > 0):
        typical = float(np.median(old[old > 0]))
    elif len(good):
        typical = float(np.median(good))
    else:
        return
    rho[fresh] = np.clip(found[fresh], FAR * typical, NEAR * typical)


def _normal_equations(graph: Graph, placed: Sequence[int], poses: Floats) -> tuple[Floats, Floats]:
    """Weighted sums [V, N] of `A.B` and `A.A` over the placed views that see each anchor, in pixels squared."""
    o = graph.observations
    dots, squares = np.zeros(o.known.shape), np.zeros(o.known.shape)
    inside = set(placed)
    for index, (a, b) in enumerate(o.pairs):
        if a in inside and b in inside:
            relative = poses[b] @ np.linalg.inv(poses[a])
            dot, squared = _linear(graph, index, relative[:3, :3], relative[:3, 3])
            weight = o.weight[index] * o.focal[index] ** 2
            dots[a] += weight * dot
            squares[a] += weight * squared
    return dots, squares


def _drop_undetermined(graph: Graph, placed: Sequence[int], poses: Floats, rho: Floats, before: Floats) -> None:
    """Forget new depths that the parallax does not fix: the next solution would take them for known."""
    _, squares = _normal_equations(graph, placed, poses)
    sigma = POINT_SIGMA / np.maximum(rho * np.sqrt(squares), 1e-12)
    rho[(before == 0) & (sigma > UNDETERMINED)] = 0


def _adjust(graph: Graph, placed: Sequence[int], poses: Floats, rho: Floats, known: Floats, iterations: int) -> None:
    o = graph.observations
    position = {view: index for index, view in enumerate(placed)}
    kept = [index for index, (a, b) in enumerate(o.pairs) if a in position and b in position]
    pairs = np.array([[position[int(a)], position[int(b)]] for a, b in o.pairs[kept]])
    chosen = list(placed)
    weight = np.where(rho[chosen][pairs[:, 0]] != 0, o.weight[kept], 0.0)
    problem = Observations(o.rays[chosen], pairs, o.seen[kept], weight, o.focal[kept], known[chosen])
    new_poses, new_rho, _ = adjust(problem, poses[chosen], rho[chosen], iterations)
    if not (np.isfinite(new_poses).all() and np.isfinite(new_rho).all()):
        return
    poses[chosen] = new_poses
    positive = new_rho[new_rho > 0]
    if len(positive):
        typical = float(np.median(positive))
        new_rho = np.where(rho[chosen] != 0, np.clip(new_rho, FAR * typical, NEAR * typical), 0)
        rho[chosen] = new_rho


def _keep_scale(members: NDArray[np.int64], poses: Floats, rho: Floats, before: Floats) -> None:
    """One scale for the chain: known depths keep their median; the first ones get the median 1."""
    shared = (before[members] > 0) & (rho[members] > 0)
    if np.count_nonzero(shared) >= 5:
        factor = float(np.median((rho[members] / np.maximum(before[members], 1e-12))[shared]))
    else:
        known = rho[members][rho[members] > 0]
        if not len(known):
            return
        factor = float(np.median(known))
    anchor = poses[members[0]].copy()
    relative = poses[members] @ np.linalg.inv(anchor)
    relative[:, :3, 3] *= factor
    poses[members] = relative @ anchor
    rho[members] /= factor
