"""An estimator and the alignment together: a whole sequence through the Mapper, measured as the demo measures its walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from dust3r_ros.alignment import warm_up
from dust3r_ros.demo.inputs import TrueView, room
from dust3r_ros.demo.measure import confident_depth, path_score
from dust3r_ros.demo.offline import map_frames
from dust3r_ros.demo.recording import Recording
from dust3r_ros.estimators import Estimator
from dust3r_ros.mapping import Frame, Mapper
from dust3r_ros.training.evaluation.kitchen import kitchen_views
from dust3r_ros.training.evaluation.measures import DepthScore, depth_score
from dust3r_ros.training.evaluation.summary import Figures

LEAST_POSES = 3  # that a similarity is determined by
LEAST_PLACED = 0.9  # share of the images without whose poses a path is no result


@dataclass(frozen=True)
class TrueSequence:
    """Views of a moving camera, made when asked for."""

    name: str
    title: str
    views: Callable[[], Sequence[TrueView]]
    calibrated: bool = True  # the cameras of the views are what took them, and not a convention: the Mapper is told


def chosen_sequences(kitchen: Path | None) -> list[TrueSequence]:
    """The demo's walk, and the red kitchen where its folder is given: its lens and its shutter nobody has measured."""
    found = [TrueSequence("walk", "the demo's walk through a simulated room, 60 images", lambda: list(room()))]
    if kitchen is not None:
        found.append(TrueSequence("kitchen_walk", "the red kitchen (7-Scenes), every image", lambda: kitchen_views(kitchen), False))
    return found


def sequence_figures(estimator: Estimator, sequence: TrueSequence, advance: Callable[[], None] | None = None) -> Figures:
    """Means over the sequence as it was taken and backwards, which tells two estimators apart that one way may confuse; each way as
    `way_figures`. A figure that one way has no result of has none.
    """
    there = sequence.views()
    ways = [way_figures(estimator, views, sequence.calibrated, advance) for views in (there, backwards(there))]

    def mean(name: str) -> float | None:
        values = [getattr(way, name) for way in ways]
        return None if None in values else float(np.mean(values))

    measured = {field.name: mean(field.name) for field in fields(Figures) if field.name != "pairs"}
    return Figures(pairs=sum(way.pairs for way in ways), **measured)


def backwards(views: Sequence[TrueView]) -> list[TrueView]:
    """The last one first, in the same time."""
    return [replace(view, stamp=views[0].stamp + views[-1].stamp - view.stamp) for view in reversed(views)]


def way_figures(
    estimator: Estimator, views: Sequence[TrueView], calibrated: bool = True, advance: Callable[[], None] | None = None
) -> Figures:
    """All images, with their cameras if `calibrated`, through a Mapper of default settings, as in the demo.

    Path: root mean square position error after the best similarity (Umeyama 1991), in per cent of the diagonal of the true path's bounding
    box; None where under 90 % of the images got a pose. Depth: over the pixels of the keyframes' depth images as they are published
    (confidence 3 and more), one scale for all of them, as `depth_score` counts them; None without a keyframe. Seconds: of an image.
    """

    def frames() -> Iterator[Frame]:
        for view in views:
            yield Frame(view.stamp, view.image, view.camera if calibrated else None)
            if advance is not None:
                advance()

    warm_up()  # compiled code is no part of an image's time
    recording = map_frames(frames(), Mapper(estimator=estimator))
    placed = len(recording.trajectory) / len(views)
    ate = path_score(recording, views).percent if placed >= LEAST_PLACED and len(recording.trajectory) >= LEAST_POSES else None
    depth = _depth(recording, views)
    return Figures(
        pairs=len(views),
        depth_abs_rel=None if depth is None else depth.abs_rel,
        depth_within_25_percent=None if depth is None else depth.within_25_percent,
        depth_abs_rel_estimated=None if depth is None else depth.abs_rel_estimated,
        coverage=None if depth is None else depth.coverage,
        seconds=1 / recording.rate if recording.rate > 0 else None,
        ate_percent=ate,
        placed=placed,
    )


def _depth(recording: Recording, views: Sequence[TrueView]) -> DepthScore | None:
    """Of all keyframes together."""
    found, true = [], []
    for view in views:
        if view.depth is not None and view.stamp in recording.depths:
            known = view.depth > 0
            found.append(confident_depth(recording, view.stamp)[known])
            true.append(view.depth[known])
    if not found:
        return None
    depth, truth = (np.concatenate(side).astype(np.float64) for side in (found, true))
    return depth_score(depth, truth, depth > 0)
