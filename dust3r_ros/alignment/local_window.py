"""The newest keyframes and the pairs between them, aligned anew whenever one comes, from where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.align import AlignmentError, align
from dust3r_ros.alignment.dense import solve_dense
from dust3r_ros.alignment.known_poses import pose_similarity
from dust3r_ros.alignment.linear_system import make_layout
from dust3r_ros.alignment.mount import Mount
from dust3r_ros.alignment.mount_placing import place_mounted
from dust3r_ros.alignment.pair_check import bad_pairs
from dust3r_ros.alignment.priors import Priors
from dust3r_ros.alignment.problem import Array, Problem, State, choose_pixels
from dust3r_ros.alignment.refine import Constraints, Stage, refine
from dust3r_ros.alignment.spanning_tree import Branch, score
from dust3r_ros.alignment.start import MIN_KNOWN, Placed, Sides, fit_pairs, place_branch
from dust3r_ros.alignment.window_data import PIXELS, Edge, Node, Pair, WindowData
from dust3r_ros.alignment.workers import one_thread_each
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import GeometryError, Similarity, rotation_angle

BENT = 2e-3  # rad, share of the depth, log
MIN_SHARED = 12  # pixels of known depth, to lay one window onto another
FREE_TOO = 2  # keyframes before the new one's partners: fewer drift more, more gain nothing
STAGE = Stage(PIXELS, 3e-3, 0.9, 4, 3e-3)  # from near by: the next keyframe goes on where this one ended
REVISED = Stage(PIXELS, 3e-3, 0.9, 12, 3e-3)  # where pairs that were settled have changed


@dataclass(frozen=True, eq=False)
class AlignedView:
    """One keyframe as the window has it."""

    pose: Array  # [4, 4] camera to world
    focal: float  # pixels
    depth: NDArray[np.float32] | None  # [H, W] along z, 0 where nothing is known; None: as it was
    confidence: NDArray[np.float32] | None  # [H, W] >= 1; None: as it was


class LocalWindow(WindowData):
    """Keyframes by index, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self._before: tuple[dict[int, Node], dict[Pair, Edge], dict[int, Mount]] = {}, {}, {}

    def add(
        self,
        keyframe: int,
        predictions: Sequence[PairPrediction],
        focal: float | None,
        principal_point: tuple[float, float] | None,
        mount: Mount | None = None,
    ) -> dict[int, AlignedView] | None:
        """All keyframes that have a place, with depths the new one and those whose earlier pairs were revised.

        None, and nothing has changed, if no place is found. Keyframes that came before any pair wait without a place. One with a `mount`
        has its pose from there, and lets those that waited for depth have theirs.
        """
        nodes, edges = {n: copy(node) for n, node in self.nodes.items()}, {pair: copy(edge) for pair, edge in self.edges.items()}
        self._before = nodes, edges, dict(self.mounts)
        self.nodes[keyframe] = Node(focal, principal_point)
        if mount is not None:
            self.mounts[keyframe] = mount
        if not predictions:
            return {}
        predictions = [p for p in predictions if p.i in self.nodes and p.j in self.nodes]
        found = None
        try:
            with one_thread_each():
                if not self.placed:
                    found = self._begin(predictions)
                else:
                    self.take(predictions)
                    predictions = self._telling(predictions)
                    found = self._extend(keyframe, predictions) if mount is None else self._attach(keyframe, predictions)
        finally:
            if found is None:
                self.take_back()
        return found

    def put_back(self, keyframe: int, view: AlignedView, focal: float | None, principal_point: tuple[float, float] | None) -> None:
        """A keyframe whose place is settled is of the window again: it is held there, and what comes next joins on."""
        assert view.depth is not None
        assert view.confidence is not None
        height, width = view.depth.shape
        sure = np.where(view.depth > 0, view.confidence, np.float32(0)).astype(np.float32)
        index = choose_pixels(height, width, [np.ascontiguousarray(sure.reshape(-1))], PIXELS)
        depth = view.depth.reshape(-1)[index].astype(np.float64)
        centre = np.array(principal_point or (width / 2, height / 2))
        self.nodes[keyframe] = Node(
            focal,
            principal_point,
            index=index,
            pixels=np.stack([index % width, index // width]) - centre[:, None],
            rotation=view.pose[:3, :3].copy(),
            position=view.pose[:3, 3].copy(),
            focal=view.focal,
            depth=np.where(depth > 0, depth, np.median(depth[depth > 0]) if (depth > 0).any() else 1.0),
            held=True,
        )

    def take_back(self) -> None:
        """As it was before the last `add`."""
        self.nodes, self.edges, self.mounts = self._before

    def view(self, keyframe: int) -> AlignedView | None:
        """A keyframe with its depths by all that is known now; None if it has no place."""
        with one_thread_each():
            return self._views([keyframe]).get(keyframe) if keyframe in self.solved()[0] else None

    def again(self, predictions: Sequence[PairPrediction], there: Mapping[int, AlignedView]) -> dict[int, AlignedView] | None:
        """All pairs anew, solved from nothing and laid onto keyframes as they are `there`; None, and nothing has changed, if that fails."""
        fresh = LocalWindow()
        fresh.nodes = {n: Node(node.focal_given, node.principal_point) for n, node in self.nodes.items()}
        with one_thread_each():
            found = fresh._begin(predictions)
            frame = None if found is None else _onto(found, there)
            if frame is None:
                return None
            fresh.move(dict.fromkeys(fresh.placed, frame))
            found = fresh._views(fresh.placed)
        self.nodes, self.edges = fresh.nodes, fresh.edges
        return found

    def move(self, moves: dict[int, Similarity]) -> None:
        """Each keyframe with its depths by a similarity of its own; the pairs follow.

        If that bends the window, its keyframes are held from now on: left free they would bend back to what their pairs say alone.
        """
        if not moves:
            return
        first = next(iter(moves.values()))
        bent = any(_differ(first, move, self.nodes[n]) for n, move in moves.items())
        for n, move in moves.items():
            node = self.nodes[n]
            if node.depth is not None and node.rotation is not None and node.position is not None:
                node.rotation = move.rotation @ node.rotation
                node.position = move.scale * move.rotation @ node.position + move.translation
                node.depth = move.scale * node.depth
                node.held = node.held or bent
        images, pairs = self.solved()
        if not pairs:
            return
        problem, state = self.problem(images, pairs)
        world = _world(problem, state)
        rotation, translation, scale = fit_pairs(problem, world, np.ones(state.depth.shape, bool))
        self.keep(images, pairs, replace(state, pair_rotation=rotation, pair_translation=translation, pair_scale=scale))

    # ---- how -------------------------------------------------------------------------------------------------------------------------

    def _telling(self, predictions: Sequence[PairPrediction]) -> list[PairPrediction]:
        """Those that know something of both views. The scale of another would be free, and the objective shrinks the others by it."""
        kept = []
        for p in predictions:
            if min(int((weight > 0).sum()) for weight in self.edges[p.i, p.j].weight.values()) >= MIN_KNOWN:
                kept.append(p)
            else:
                del self.edges[p.i, p.j]
        return kept

    def _begin(self, predictions: Sequence[PairPrediction]) -> dict[int, AlignedView] | None:
        """The first scene, from nothing."""
        fixed = {n: node.focal_given for n, node in self.nodes.items() if node.focal_given is not None}
        centres = {n: node.principal_point for n, node in self.nodes.items() if node.principal_point is not None}
        try:
            found = align(predictions, fixed, None, centres, shared_focal=True)
        except (AlignmentError, GeometryError):  # nothing holds together, or no camera sees so
            return None
        self.take([p for e, p in enumerate(predictions) if e not in found.dropped and p.i in found.images and p.j in found.images])
        for n, image in enumerate(found.images):
            node = self.nodes[image]
            node.rotation, node.position = found.poses[n, :3, :3].copy(), found.poses[n, :3, 3].copy()
            node.focal = float(found.focals[n])
            assert node.index is not None
            depth = found.depths[n].numpy().reshape(-1)[node.index].astype(np.float64)
            node.depth = np.where(depth > 0, depth, np.median(depth[depth > 0]) if (depth > 0).any() else 1.0)
        for e, p in enumerate(predictions):
            similarity, edge = found.pair_similarities[e], self.edges.get((p.i, p.j))
            if similarity is not None and edge is not None:
                edge.rotation, edge.translation, edge.scale = similarity.rotation, similarity.translation, similarity.scale
        return {
            image: AlignedView(found.poses[n], float(found.focals[n]), found.depths[n].numpy(), found.confidences[n].numpy())
            for n, image in enumerate(found.images)
        }

    def _extend(self, keyframe: int, predictions: Sequence[PairPrediction]) -> dict[int, AlignedView] | None:
        known = {*self.placed, keyframe}
        predictions = [p for p in predictions if p.i in known and p.j in known]  # an estimator may revise earlier pairs too
        new = [(p.i, p.j) for p in predictions]
        partners = sorted({n for pair in new for n in pair} - {keyframe})
        if not any(keyframe in pair for pair in new):
            return None
        near = [*partners, keyframe]
        problem, _ = self.problem(near, new)
        sides, scores = Sides(problem, new), [score(p) for p in predictions]
        placed = {n: self._as_placed(n, problem) for n in partners}
        given = self.nodes[keyframe].focal_given
        focals = {n: self.nodes[n].focal for n in partners}
        focals[keyframe] = given if given is not None else focals[partners[-1]]
        for e in sorted(range(len(new)), key=lambda e: -scores[e]):
            other = new[e][0] if new[e][1] == keyframe else new[e][1]
            if keyframe in new[e] and keyframe not in placed:
                placed.update(place_branch(Branch(other, ((other, keyframe, e),)), sides, scores, focals, placed))
        if keyframe not in placed:
            return None
        self._put(keyframe, placed[keyframe])
        return self._join(keyframe, near, new, placed, problem)

    def _attach(self, keyframe: int, predictions: Sequence[PairPrediction]) -> dict[int, AlignedView] | None:
        """A keyframe that is mounted on another one, and those that waited for its depth."""
        found = place_mounted(self, keyframe, predictions)
        if not found:
            return None
        for n, one in found.items():
            self._put(n, one)
        new = [(p.i, p.j) for p in predictions if self.nodes[p.i].depth is not None and self.nodes[p.j].depth is not None]
        near = sorted({n for pair in new for n in pair})
        problem, _ = self.problem(near, new)
        placed = {n: found[n] if n in found else self._as_placed(n, problem) for n in near}
        return self._join(keyframe, near, new, placed, problem, {*found})

    def _join(
        self,
        keyframe: int,
        near: Sequence[int],
        new: Sequence[Pair],
        placed: Mapping[int, Placed],
        problem: Problem,
        also: Iterable[int] = (),
    ) -> dict[int, AlignedView] | None:
        """The new pairs onto what is placed, and all near by to their optimum."""
        world = np.stack([placed[n].world for n in near])
        rotation, translation, scale = fit_pairs(problem, world, np.stack([placed[n].weight for n in near]) > 0)
        for e, pair in enumerate(new):
            edge = self.edges[pair]
            edge.rotation, edge.translation, edge.scale = rotation[e], translation[e], float(scale[e])
        revised = {n for pair in new if keyframe not in pair for n in pair} | set(also)
        fixed_to = {mount.on for n in near if (mount := self.mounts.get(n)) is not None and mount.on in self.nodes}
        self._settle({*near, *fixed_to, *[n for n in self.placed if n not in near][-FREE_TOO:]}, REVISED if revised else STAGE)
        if not any(keyframe in pair for pair in self.edges):
            return None
        return self._views({keyframe, *revised})

    def _settle(self, free: set[int], stage: Stage) -> None:
        """The keyframes `free` to their optimum from where they are, held by what else they are paired with and by the pairs' mean scale.

        Where all are free, the oldest holds still.
        """
        while True:
            pairs = [pair for pair in self.solved()[1] if pair[0] in free or pair[1] in free]
            images = [n for n in self.nodes if any(n in pair for pair in pairs)]
            if not pairs:
                return
            problem, state = self.problem(images, pairs)
            fixed = np.array([self.nodes[n].focal_given is not None for n in images])
            group = np.where(fixed, np.arange(len(images)), len(images))
            held = np.array([self.nodes[n].held or n not in free for n in images])
            held[0] = held[0] or not held.any()
            mounted = [mount.prior(n) for n, mount in self.mounts.items() if n in images and mount.on in images]
            ties = [(images.index(one.i), images.index(one.j)) for one in mounted]
            layout = make_layout(problem, held, fixed, group, ties)
            priors = Priors({n: at for at, n in enumerate(images)}, {}, mounted, {})
            constraints = Constraints(priors=priors or None, motions=self.motions(images, pairs) or None)
            state, _ = refine(problem, state, layout, stage, constraints)
            self.keep(images, pairs, state)
            bad = bad_pairs(problem, state)
            if not bad:
                return
            for e in bad:
                del self.edges[pairs[e]]

    def _views(self, changed: Iterable[int]) -> dict[int, AlignedView]:
        """All that have a place; with their depths those that changed."""
        images, pairs = self.solved()
        changed = [n for n in changed if n in images]
        _, state = self.problem(images, pairs)
        predictions = [self.edges[pair].prediction for pair in pairs]
        centres = {n: point for n in images if (point := self.nodes[n].principal_point) is not None}
        dense = solve_dense(predictions, images, centres, state, [images.index(n) for n in changed])
        poses = state.poses
        found = {n: AlignedView(poses[at], float(state.focal[at]), None, None) for at, n in enumerate(images)}
        for n, depth, confidence in zip(changed, dense.depths, dense.confidences, strict=True):
            found[n] = replace(found[n], depth=depth.numpy(), confidence=confidence.numpy())
        return found

    def _as_placed(self, n: int, problem: Problem) -> Placed:
        node = self.nodes[n]
        assert node.rotation is not None
        assert node.position is not None
        points = node.rotation @ self.own_points(n) + node.position[:, None]
        at = problem.images.index(n)
        weight = problem.weight[problem.start[at] : problem.start[at + 1]].max(0)
        return Placed(points, weight, node.rotation, node.position, node.focal)

    def _put(self, n: int, placed: Placed) -> None:
        node = self.nodes[n]
        node.rotation, node.position, node.focal = placed.rotation, placed.position, placed.focal
        depth = placed.rotation[:, 2] @ (placed.world - placed.position[:, None])
        known = (placed.weight > 0) & (depth > 0)
        node.depth = np.where(known, depth, np.median(depth[known]) if known.any() else 1.0)


def _differ(one: Similarity, other: Similarity, node: Node) -> bool:
    """Whether two moves put a keyframe at places that are apart by more than a little."""
    if node.position is None or node.depth is None:
        return False
    turn = rotation_angle(one.rotation.T @ other.rotation)
    apart = np.linalg.norm(one.apply(node.position[None]) - other.apply(node.position[None])) / (other.scale * np.median(node.depth))
    return bool(turn > BENT or apart > BENT or abs(np.log(one.scale / other.scale)) > BENT)


def _world(problem: Problem, state: State) -> Array:
    """[N, 3, S]"""
    xy = problem.pixels / state.focal[:, None, None]
    rays = np.concatenate([xy, np.ones_like(xy[:, :1])], axis=1)
    return np.asarray(state.rotation @ (rays * state.depth[:, None]) + state.position[..., None])


def _onto(new: Mapping[int, AlignedView], old: Mapping[int, AlignedView]) -> Similarity | None:
    """From where keyframes are now to where they were: scale by their depths, rotation and position by their poses, which are surer."""
    ratios = []
    for n in set(new) & set(old):
        now, before = new[n].depth, old[n].depth
        if now is not None and before is not None and now.shape == before.shape:
            both = (now > 0) & (before > 0)
            ratios.append(np.log(before[both] / now[both]))
    if not ratios or sum(map(len, ratios)) < MIN_SHARED:
        return None
    shared = sorted(set(new) & set(old))
    scale = float(np.exp(np.median(np.concatenate(ratios))))
    return pose_similarity(np.stack([new[n].pose for n in shared]), np.stack([old[n].pose for n in shared]), scale)
