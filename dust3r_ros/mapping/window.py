"""The sliding window of keyframes: their tokens, the predictions between them, and how together they join the map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment import AlignmentError, align, pose_similarity
from dust3r_ros.estimators import Estimator, PairPrediction, Tokens
from dust3r_ros.geometry import Similarity
from dust3r_ros.mapping.scene_graph import Pair, SceneGraph, directed
from dust3r_ros.mapping.types import Keyframe

TRUSTED = 1.5  # a confidence from which a pixel counts as seen
MIN_TRUSTED_SHARE = 0.05  # of a keyframe's pixels, or it has no place in the map


@dataclass(frozen=True, eq=False)
class Entry:
    stamp: int
    tokens: Tokens


@dataclass(frozen=True, eq=False)
class Solved:
    """One keyframe of a window's solution, in its frame and on its scale."""

    pose: NDArray[np.float64]  # [4, 4] camera to world
    focal: float  # pixels
    depth: NDArray[np.float32]  # [h, w] along z, 0 where nothing is known
    confidence: NDArray[np.float32]  # [h, w] >= 1


class KeyframeWindow:
    """Keyframes by index, oldest first."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self._entries: dict[int, Entry] = {}
        self._predictions: dict[Pair, PairPrediction] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def indices(self) -> tuple[int, ...]:
        return tuple(self._entries)

    def encode(self, keyframe: Keyframe) -> None:
        """Take back a keyframe of a saved map."""
        tokens = self._estimator.encode(keyframe.image, keyframe.camera)
        self._entries[keyframe.index] = Entry(keyframe.stamp, replace(tokens, source=keyframe.source))

    def add(self, index: int, entry: Entry) -> None:
        self._entries[index] = entry

    def remove(self, index: int) -> None:
        """Forget a keyframe and all predictions with it."""
        del self._entries[index]
        self._predictions = {pair: p for pair, p in self._predictions.items() if index not in pair}

    def estimate(self, pairs: Iterable[Pair]) -> None:
        """Predict `pairs` (both directions are asked of the estimator as given)."""
        views = {index: entry.tokens for index, entry in self._entries.items()}
        for prediction in self._estimator.estimate(views, list(pairs)):
            self._predictions[prediction.i, prediction.j] = prediction

    def estimate_all(self, graph: SceneGraph) -> None:
        self.estimate(directed([pair for at, index in enumerate(self.indices) for pair in graph.new_pairs(self.indices[:at], index)]))

    def solve(self) -> dict[int, Solved]:
        """The window's keyframes in a frame and on a scale of their own; those that nothing trusted is known of are left out."""
        # An intrinsics matrix that was measured stands; a guessed one gives way to what the pointmaps say.
        focals = {index: entry.tokens.camera.fx for index, entry in self._entries.items() if not entry.tokens.camera.assumed}
        centres = {index: (entry.tokens.camera.cx, entry.tokens.camera.cy) for index, entry in self._entries.items()}
        try:
            found = align(list(self._predictions.values()), focals, None, centres)
        except AlignmentError:
            return {}
        solved = zip(found.poses, found.focals, found.depths, found.confidences, strict=True)
        images = (Solved(pose, float(focal), depth.numpy(), confidence.numpy()) for pose, focal, depth, confidence in solved)
        return {index: image for index, image in zip(found.images, images, strict=True) if _trusted_share(image) >= MIN_TRUSTED_SHARE}

    def keyframes(self, solution: Mapping[int, Solved], to_map: Similarity) -> tuple[Keyframe, ...]:
        """The solution as keyframes in the map's frame and scale."""
        return tuple(self._keyframe(index, image, to_map) for index, image in solution.items())

    def _keyframe(self, index: int, image: Solved, to_map: Similarity) -> Keyframe:
        entry = self._entries[index]
        camera, source = entry.tokens.camera, entry.tokens.source
        if camera.assumed:
            longer = image.focal / camera.fx
            camera = replace(camera, fx=camera.fx * longer, fy=camera.fy * longer)
            source = replace(source, fx=source.fx * longer, fy=source.fy * longer)
        return Keyframe(
            index=index,
            stamp=entry.stamp,
            pose=to_map.apply_pose(image.pose),
            source=source,
            camera=camera,
            image=entry.tokens.image,
            depth=image.depth * np.float32(to_map.scale),
            confidence=image.confidence,
        )


def first_map_frame(solution: Mapping[int, Solved]) -> Similarity:
    """The map's frame and scale: the oldest keyframe's camera, whose median depth is 1."""
    oldest = solution[min(solution)]
    scale = 1.0 / float(np.median(oldest.depth[oldest.confidence >= TRUSTED]))
    rotation = oldest.pose[:3, :3].T
    return Similarity(scale, rotation, -scale * rotation @ oldest.pose[:3, 3])


def onto_map(solution: Mapping[int, Solved], placed: Mapping[int, Keyframe]) -> Similarity | None:
    """The similarity from the window's solution to the map, from the keyframes that both have; None if they share none.

    Scale by the median ratio of depths that both trust; rotation and position by the cameras' poses, which are surer than points.
    """
    shared = [index for index in solution if index in placed]
    ratios = []
    for index in shared:
        new, old = solution[index].depth, placed[index]
        if new.shape != old.depth.shape:
            continue
        both = (new > 0) & (old.depth > 0) & (solution[index].confidence >= TRUSTED) & (old.confidence >= TRUSTED)
        ratios.append(np.log(old.depth[both] / new[both]))
    if not ratios or sum(map(len, ratios)) < 12:
        return None
    scale = float(np.exp(np.median(np.concatenate(ratios))))
    return pose_similarity(np.stack([solution[index].pose for index in shared]), np.stack([placed[index].pose for index in shared]), scale)


def _trusted_share(image: Solved) -> float:
    return float(((image.confidence >= TRUSTED) & (image.depth > 0)).mean())
