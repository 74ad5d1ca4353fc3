"""The sliding window of keyframes: what the estimator knows of them, the pairs between them, and keyframes as the map has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dust3r_ros.alignment import AlignedView, SettledView
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
    name: str = ""  # of the camera, where there are several

    @property
    def focal(self) -> float | None:
        """Pixels of the working image. One that was measured stands; a guessed one gives way to what the pointmaps say."""
        return None if self.tokens.camera.assumed else self.tokens.camera.fx

    @property
    def principal_point(self) -> tuple[float, float]:
        return self.tokens.camera.cx, self.tokens.camera.cy


class KeyframeWindow:
    """Keyframes by index, oldest first."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    @property
    def indices(self) -> tuple[int, ...]:
        return tuple(self._entries)

    def encode(self, keyframe: Keyframe) -> Entry:
        """Take back a keyframe of a saved map."""
        tokens = self._estimator.encode(keyframe.image, keyframe.camera)
        self._entries[keyframe.index] = Entry(keyframe.stamp, replace(tokens, source=keyframe.source), keyframe.name)
        return self._entries[keyframe.index]

    def add(self, index: int, entry: Entry) -> None:
        self._entries[index] = entry

    def remove(self, index: int) -> None:
        del self._entries[index]

    def estimate(self, pairs: Sequence[Pair], others: Mapping[int, Tokens] | None = None) -> list[PairPrediction]:
        """Predict `pairs` (both directions are asked of the estimator as given); `others`: keyframes that are not of the window."""
        views = {index: entry.tokens for index, entry in self._entries.items()}
        return list(self._estimator.estimate({**(others or {}), **views}, list(pairs)))

    def estimate_all(self, graph: SceneGraph) -> list[PairPrediction]:
        return self.estimate(
            directed([pair for at, index in enumerate(self.indices) for pair in graph.new_pairs(self.indices[:at], index)])
        )

    def keyframe(self, index: int, view: AlignedView, known: Keyframe | None) -> Keyframe | None:
        """As the window's alignment has it now; depth and confidence where it says none as they were known. None if they were not."""
        entry = self._entries[index]
        depth, confidence = view.depth, view.confidence
        if depth is None or confidence is None:
            if known is None:
                return None
            depth, confidence = known.depth, known.confidence
        camera, source = entry.tokens.camera, entry.tokens.source
        if camera.assumed:
            longer = view.focal / camera.fx
            camera = replace(camera, fx=camera.fx * longer, fy=camera.fy * longer)
            source = replace(source, fx=source.fx * longer, fy=source.fy * longer)
        return Keyframe(
            index=index,
            stamp=entry.stamp,
            pose=view.pose,
            source=source,
            camera=camera,
            image=entry.tokens.image,
            depth=depth,
            confidence=confidence,
            name=entry.name,
        )


def trusted_share(view: AlignedView) -> float:
    """Of the pixels, those that something trusted is known of."""
    if view.depth is None or view.confidence is None:
        return 0.0
    return float(((view.confidence >= TRUSTED) & (view.depth > 0)).mean())


def first_map_frame(views: Mapping[int, AlignedView]) -> Similarity:
    """The map's frame and scale: the oldest keyframe's camera, whose median depth is 1."""
    oldest = views[min(views)]
    assert oldest.depth is not None
    assert oldest.confidence is not None
    scale = 1.0 / float(np.median(oldest.depth[(oldest.confidence >= TRUSTED) & (oldest.depth > 0)]))
    rotation = oldest.pose[:3, :3].T
    return Similarity(scale, rotation, -scale * rotation @ oldest.pose[:3, 3])


def in_frame(view: AlignedView, frame: Similarity) -> AlignedView:
    """The view in another frame and on its scale."""
    depth = None if view.depth is None else view.depth * np.float32(frame.scale)
    return replace(view, pose=frame.apply_pose(view.pose), depth=depth)


def settled(keyframe: Keyframe) -> SettledView:
    camera = keyframe.camera
    return SettledView(keyframe.depth, camera.fx, (camera.cx, camera.cy))
