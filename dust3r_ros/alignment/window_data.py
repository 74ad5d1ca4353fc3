"""What the alignment's window holds: its keyframes and pairs on chosen pixels, and both as a problem and its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.compiled_samples import pick
from dust3r_ros.alignment.mount import Mount
from dust3r_ros.alignment.pair_motions import PairMotions, SaidMotion, usable
from dust3r_ros.alignment.problem import KNOWN, Array, Problem, State, choose_pixels, flat
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity

PIXELS = 300  # chosen of each image

Pair = tuple[int, int]


@dataclass(eq=False)
class Node:
    """A keyframe of the window. What is solved for is None until it has a place."""

    focal_given: float | None
    principal_point: tuple[float, float] | None
    index: NDArray[np.int64] | None = None  # [S] chosen pixels, row times width plus column
    pixels: Array | None = None  # [2, S] the same from the principal point
    rotation: Array | None = None
    position: Array | None = None
    focal: float = 0.0
    depth: Array | None = None  # [S]
    held: bool = False  # where the whole graph has put it: what comes later joins on


@dataclass(eq=False)
class Edge:
    """A pair of the window, on the chosen pixels of its two images."""

    prediction: PairPrediction
    points: dict[int, Array]  # [3, S] by image
    weight: dict[int, Array]  # [S]
    rotation: Array | None = None
    translation: Array | None = None
    scale: float = 1.0


class WindowData:
    """Keyframes by index, oldest first, and the pairs between them."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.edges: dict[Pair, Edge] = {}
        self.mounts: dict[int, Mount] = {}  # of keyframes whose camera is fixed to another one's

    @property
    def placed(self) -> list[int]:
        return [n for n, node in self.nodes.items() if node.depth is not None]

    def remove(self, keyframe: int) -> None:
        self.nodes.pop(keyframe, None)
        self.mounts.pop(keyframe, None)
        self.edges = {pair: edge for pair, edge in self.edges.items() if keyframe not in pair}

    def pose(self, keyframe: int) -> Similarity:
        node = self.nodes[keyframe]
        assert node.rotation is not None
        assert node.position is not None
        return Similarity(1.0, node.rotation.copy(), node.position.copy())

    def own_points(self, keyframe: int) -> Array:
        """[3, S] of the chosen pixels, in the keyframe's own camera."""
        node = self.nodes[keyframe]
        assert node.depth is not None
        assert node.pixels is not None
        xy = node.pixels / node.focal
        return np.concatenate([xy, np.ones((1, xy.shape[1]))]) * node.depth

    def take(self, predictions: Sequence[PairPrediction]) -> None:
        """New pairs on the chosen pixels, which are chosen when an image's first pairs come."""
        seen: dict[int, list[NDArray[np.float32]]] = {}
        for p in predictions:
            for n, confidence in ((p.i, p.confidence_i), (p.j, p.confidence_j)):
                seen.setdefault(n, []).append(flat(confidence, 1)[:, 0])
        for n, confidences in seen.items():
            if self.nodes[n].index is None:
                height, width = next(p.confidence_i if p.i == n else p.confidence_j for p in predictions if n in (p.i, p.j)).shape
                index = choose_pixels(height, width, confidences, PIXELS)
                centre = np.array(self.nodes[n].principal_point or (width / 2, height / 2))
                self.nodes[n].index, self.nodes[n].pixels = index, np.stack([index % width, index // width]) - centre[:, None]
        for p in predictions:
            edge = Edge(p, {}, {})
            for n, points, confidence in ((p.i, p.points_i, p.confidence_i), (p.j, p.points_j, p.confidence_j)):
                edge.points[n], edge.weight[n] = np.empty((3, PIXELS)), np.empty(PIXELS)
                pick(flat(points, 3), flat(confidence, 1)[:, 0], self.nodes[n].index, KNOWN, 1.0, edge.points[n], edge.weight[n])
            self.edges[p.i, p.j] = edge

    def solved(self) -> tuple[list[int], list[Pair]]:
        """Images with a place and at least one pair, and the pairs among them."""
        images = self.placed
        pairs = [pair for pair in self.edges if pair[0] in images and pair[1] in images]
        joined = {n for pair in pairs for n in pair}
        return [n for n in images if n in joined], pairs

    def problem(self, images: Sequence[int], pairs: Sequence[Pair]) -> tuple[Problem, State]:
        own = [[e for e, pair in enumerate(pairs) if n in pair] for n in images]
        edges = [self.edges[pair] for pair in pairs]
        share = 1.0 / (PIXELS * max(len(pairs), 1))
        problem = Problem(
            images=tuple(images),
            start=np.concatenate([[0], np.cumsum([len(sides) for sides in own])]).astype(np.int64),
            pair=np.array([e for sides in own for e in sides], np.int64),
            points=np.stack([edges[e].points[n] for n, sides in zip(images, own, strict=True) for e in sides]),
            weight=np.stack([edges[e].weight[n] for n, sides in zip(images, own, strict=True) for e in sides]) * share,
            pixels=np.stack([pixels for n in images if (pixels := self.nodes[n].pixels) is not None]),
            pairs=len(pairs),
        )
        nodes = [self.nodes[n] for n in images]
        unplaced = (np.eye(3), np.zeros(3), np.ones(PIXELS))
        state = State(
            rotation=np.stack([node.rotation if node.rotation is not None else unplaced[0] for node in nodes]),
            position=np.stack([node.position if node.position is not None else unplaced[1] for node in nodes]),
            focal=np.array([node.focal for node in nodes]),
            pair_rotation=np.stack([edge.rotation if edge.rotation is not None else unplaced[0] for edge in edges]),
            pair_translation=np.stack([edge.translation if edge.translation is not None else unplaced[1] for edge in edges]),
            pair_scale=np.array([edge.scale for edge in edges]),
            depth=np.stack([node.depth if node.depth is not None else unplaced[2] for node in nodes]),
        )
        return problem, state

    def motions(self, images: Sequence[int], pairs: Sequence[Pair]) -> PairMotions:
        """What the pairs say of their own cameras, for the same problem. Nothing of two on one rig: how these are mounted is known."""
        said = [None if self._moment(i) == self._moment(j) else usable(self.edges[i, j].prediction) for i, j in pairs]
        return PairMotions({n: at for at, n in enumerate(images)}, pairs, said)

    def _moment(self, n: int) -> int:
        """The keyframe that all of its rig are mounted on."""
        return self.mounts[n].on if n in self.mounts else n

    def told_motions(self) -> dict[Pair, SaidMotion]:
        """Of the pairs that are solved, and how much of each the scene bears out; less where the pair the other way round says it again."""
        images, pairs = self.solved()
        motions = self.motions(images, pairs)
        if not motions:
            return {}
        _, state = self.problem(images, pairs)
        found = {}
        for e, share in zip(motions.told_by, motions.shares(state), strict=True):
            pair = pairs[e]
            said = self.edges[pair].prediction.motion
            assert said is not None
            found[pair] = SaidMotion(said, float(share) / (2 if pair[::-1] in self.edges else 1))
        return found

    def keep(self, images: Sequence[int], pairs: Sequence[Pair], state: State) -> None:
        poses = state.poses
        for at, n in enumerate(images):
            node = self.nodes[n]
            node.rotation, node.position = poses[at, :3, :3].copy(), state.position[at].copy()
            node.focal, node.depth = float(state.focal[at]), state.depth[at].copy()
        for e, pair in enumerate(pairs):
            edge = self.edges[pair]
            edge.rotation, edge.translation = state.pair_rotation[e].copy(), state.pair_translation[e].copy()
            edge.scale = float(state.pair_scale[e])
