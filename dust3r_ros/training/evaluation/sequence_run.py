"""An estimator and the alignment together: a whole sequence through the Mapper, measured as the demo measures its walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dust3r_ros.alignment import warm_up
from dust3r_ros.demo.inputs import DemoError, TrueView, room
from dust3r_ros.demo.measure import depth_score, path_score
from dust3r_ros.demo.offline import map_frames
from dust3r_ros.estimators import Estimator
from dust3r_ros.mapping import Frame, Mapper
from dust3r_ros.training.evaluation.kitchen import kitchen_views
from dust3r_ros.training.evaluation.summary import Figures

LEAST_PLACED = 0.9  # share of the images without whose poses a path is no result


@dataclass(frozen=True)
class TrueSequence:
    """Views of a moving camera, made when asked for."""

    name: str
    title: str
    views: Callable[[], Sequence[TrueView]]


def chosen_sequences(kitchen: Path | None) -> list[TrueSequence]:
    """The demo's walk, and the red kitchen where its folder is given."""
    found = [TrueSequence("walk", "the demo's walk through a simulated room, 60 images", lambda: list(room()))]
    if kitchen is not None:
        found.append(TrueSequence("kitchen_walk", "the red kitchen (7-Scenes), every image", lambda: kitchen_views(kitchen)))
    return found


def sequence_figures(estimator: Estimator, views: Sequence[TrueView], advance: Callable[[], None] | None = None) -> Figures:
    """All images with their cameras, as in the demo, through a Mapper of default settings.

    Path: root mean square position error after the best similarity (Umeyama 1991), in per cent of the diagonal of the true path's bounding
    box; None where under 90 % of the images got a pose. Depth: over the pixels of the keyframes' depth images as they are published
    (confidence 3 and more), one scale for all of them, an error of 1 where there is none. Seconds: of an image.
    """

    def frames() -> Iterator[Frame]:
        for view in views:
            yield Frame(view.stamp, view.image, view.camera)
            if advance is not None:
                advance()

    warm_up()  # compiled code is no part of an image's time
    recording = map_frames(frames(), Mapper(estimator=estimator))
    placed = len(recording.trajectory) / len(views)
    ate, abs_rel, estimated, coverage = None, 1.0, None, 0.0
    try:
        ate = path_score(recording, views).percent if placed >= LEAST_PLACED else None
        depth = depth_score(recording, views)
    except DemoError:  # nothing was mapped: the figures say so
        pass
    else:
        estimated, coverage = depth.abs_rel, depth.coverage
        abs_rel = coverage * estimated + 1 - coverage
    return Figures(
        pairs=len(views),
        depth_abs_rel=abs_rel,
        depth_abs_rel_estimated=estimated,
        coverage=coverage,
        seconds=1 / recording.rate if recording.rate > 0 else None,
        ate_percent=ate,
        placed=placed,
    )
