"""Many pair predictions in, one scene out: `align(predictions) -> Alignment`.

Global alignment (DUSt3R, section 3.4): the maximum spanning tree over the pairs, chained by weighted Procrustes, then the optimum.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dust3r_ros.alignment.dense import solve_dense
from dust3r_ros.alignment.optimum import COARSE, FINE, PIXELS, Given, bring_into_frame, settle
from dust3r_ros.alignment.pair_check import bad_pairs, trust
from dust3r_ros.alignment.pair_motions import PairMotions, usable
from dust3r_ros.alignment.priors import FocalPrior, MotionPrior, PosePrior, Priors
from dust3r_ros.alignment.problem import Problem, State, build_problem
from dust3r_ros.alignment.refine import Progress, Stage, mean_scale
from dust3r_ros.alignment.spanning_tree import score, spanning_forest
from dust3r_ros.alignment.start import MIN_KNOWN, Sides, place_branch, start
from dust3r_ros.alignment.workers import one_thread_each
from dust3r_ros.errors import Dust3rError
from dust3r_ros.estimators import PairPrediction
from dust3r_ros.geometry import Similarity, nearest_rotation

START_PIXELS = 300  # of each image, that the tree is chained on
RESTARTS = 6  # trees tried, each without the pairs that the one before showed to be bad


class AlignmentError(Dust3rError):
    """Predictions that cannot be put together."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """A scene on one scale. Entry n of every list is image `images[n]`; N images are placed."""

    images: tuple[int, ...]  # sorted
    poses: NDArray[np.float64]  # [N, 4, 4] camera to world
    focals: NDArray[np.float64]  # [N] pixels
    depths: list[torch.Tensor]  # N of [H, W] float32 along z, 0 where nothing is known
    confidences: list[torch.Tensor]  # N of [H, W] float32 >= 1: the largest that any pair has
    pair_similarities: list[Similarity | None]  # s_e P_e for each prediction; None where the pair was not used
    parts: tuple[tuple[int, ...], ...]  # images that hang together, the largest part first
    unplaced: tuple[int, ...]  # images that share too little with the largest part; not in the lists above
    objective: float  # over all pixels of the used pairs, as in DUSt3R's equation 5 with the geometric mean scale at 0.5
    dropped: dict[int, str]  # positions of predictions that were not used, and why
    others: tuple[Alignment, ...]  # the other parts of at least two images, each in a frame and on a scale of its own
    history: tuple[Progress, ...]  # the steps that were taken


def align(
    predictions: Sequence[PairPrediction],
    focals: Mapping[int, float | FocalPrior] | None = None,
    poses: Mapping[int, NDArray[np.float64] | PosePrior] | None = None,
    principal_points: Mapping[int, tuple[float, float]] | None = None,
    shared_focal: bool = False,
    motions: Sequence[MotionPrior] = (),
    refine: bool = True,
) -> Alignment:
    """Poses, focal lengths and depths of least objective (`objective`) from pair predictions.

    From the spanning tree, by second-order steps on a few confident pixels of each image, then all depths at once (docs/alignment.md).
    What is known goes in by image: `focals` (pixels) and `poses` (4x4 camera to world) as numbers come back unchanged, as priors they pull
    with their covariance, and so do `motions` between two images. `principal_points` in pixels, else the image's middle. One known pose
    fixes the frame, two or more (or a motion) the scale too. Motions that predictions bring along count too, each on its pair's own scale.
    `shared_focal`: all images whose focal length is not known were taken with the same one.
    Pairs that contradict the others are left out (`dropped`). Without `refine` it is the tree alone. The same input gives the same result.

    Raises AlignmentError without any usable prediction, PriorError for a covariance that is none.
    """
    known = Known(dict(focals or {}), dict(poses or {}), dict(principal_points or {}), shared_focal, tuple(motions))
    with one_thread_each():
        return _align(list(predictions), known, refine)


@dataclass(frozen=True, eq=False)
class Known:
    """What `align` was told."""

    focals: dict[int, float | FocalPrior]
    poses: dict[int, NDArray[np.float64] | PosePrior]
    principal_points: dict[int, tuple[float, float]]
    shared_focal: bool
    motions: tuple[MotionPrior, ...]

    @property
    def start_focals(self) -> dict[int, float]:
        return {image: f.focal if isinstance(f, FocalPrior) else f for image, f in self.focals.items()}

    def given(self, images: Sequence[int], predictions: Sequence[PairPrediction]) -> Given:
        """Of the problem of these images and predictions."""
        at = {image: n for n, image in enumerate(images)}
        fixed = np.array([isinstance(self.focals.get(image), (int, float)) for image in images])
        own = np.arange(len(images))
        return Given(
            fixed_poses={at[n]: np.asarray(p) for n, p in self.poses.items() if n in at and not isinstance(p, PosePrior)},
            fixed_focals=fixed,
            group=np.where(fixed, own, len(images)) if self.shared_focal else own,
            priors=Priors(
                at,
                {n: p for n, p in self.poses.items() if isinstance(p, PosePrior)},
                self.motions,
                {n: f for n, f in self.focals.items() if isinstance(f, FocalPrior)},
            ),
            motions=PairMotions(at, [(p.i, p.j) for p in predictions], [usable(p) for p in predictions]),
        )


def _align(predictions: list[PairPrediction], known: Known, refined: bool) -> Alignment:
    if not predictions:
        raise AlignmentError("nothing to align: no pair predictions were given; estimate at least one pair first")
    began = time.perf_counter()
    parts, dropped = _assemble(predictions, known, refined, began)
    if not parts:
        raise AlignmentError(
            f"no pair holds together: fewer than {MIN_KNOWN} of {START_PIXELS} pixels looked at in any pair have a confidence above 1; "
            "the camera must move and see texture"
        )
    for part in parts if refined else ():
        part.settle(FINE, began)
        part.bring_into_frame(FINE, began)
    found = [_result(part, parts, predictions, known, dropped) for part in parts]
    return replace(found[0], others=tuple(found[1:]))


def _assemble(predictions: list[PairPrediction], known: Known, refined: bool, began: float) -> tuple[list[Part], dict[int, str]]:
    """The parts that hang together, the largest first, each roughly in shape, and which predictions were left out for what reason."""
    pairs = [(p.i, p.j) for p in predictions]
    problem = build_problem(predictions, sorted({node for pair in pairs for node in pair}), known.principal_points, PIXELS)
    sides = Sides(problem.first(START_PIXELS), pairs)
    dropped = dict.fromkeys(sides.empty(), "next to nothing is known in one of its views (no confidence above 1)")
    scores = [score(prediction) for prediction in predictions]
    scores = [value * sure for value, sure in zip(scores, trust(sides, scores), strict=True)]
    parts: list[Part] = []
    for last in (False,) * (RESTARTS - 1) + (True,):
        usable = [e for e in range(len(pairs)) if e not in dropped]
        branches = spanning_forest([pairs[e] for e in usable], [scores[e] for e in usable])
        parts = []
        for branch in branches:
            placed = place_branch(branch.numbered(usable), sides, scores, known.start_focals)
            if len(placed) > 1:
                images = sorted(placed)
                own = [e for e in usable if pairs[e][0] in placed and pairs[e][1] in placed]
                state = start(sides.problem.among(images, own), placed)
                given = known.given(images, [predictions[e] for e in own])
                parts.append(Part(own, problem.among(images, own), state, given))
        parts.sort(key=lambda part: (-len(part.problem.images), part.problem.images))
        if not refined:
            break
        bad: dict[int, str] = {}
        for part in parts:
            part.settle(COARSE, began)
            bad.update(part.bad_pairs())
        dropped.update({} if last else bad)
        if not bad:
            break
    return parts, dropped


@dataclass(eq=False)
class Part:
    """Images that hang together, on the way to their optimum."""

    pairs: list[int]  # positions of its predictions
    problem: Problem
    state: State
    given: Given
    history: list[Progress] = field(default_factory=list)

    def settle(self, stages: tuple[Stage, ...], began: float) -> None:
        if self.given.group.max(initial=0) >= len(self.problem.images):  # a shared focal length
            own = ~self.given.fixed_focals
            self.state.focal[own] = np.median(self.state.focal[own])
        self.state, steps = settle(self.problem, self.state, self.given, stages, began)
        self.history += steps

    def bring_into_frame(self, stages: tuple[Stage, ...], began: float) -> None:
        self.state, steps = bring_into_frame(self.problem, self.state, self.given, stages, began)
        self.history += steps

    def bad_pairs(self) -> dict[int, str]:
        problem = self.problem.first(self.state.depth.shape[1])
        return {self.pairs[e]: reason for e, reason in bad_pairs(problem, self.state).items()}


def _result(part: Part, parts: Sequence[Part], predictions: list[PairPrediction], known: Known, dropped: dict[int, str]) -> Alignment:
    images, state = part.problem.images, part.state
    used = [predictions[e] for e in part.pairs]
    dense = solve_dense(used, images, known.principal_points, state)
    similarities: list[Similarity | None] = [None] * len(predictions)
    for at, e in enumerate(part.pairs):
        rotation = nearest_rotation(state.pair_rotation[at])
        similarities[e] = Similarity(float(state.pair_scale[at]), rotation, state.pair_translation[at].copy())
    poses, focals = state.poses, state.focal.copy()
    for n, image in enumerate(images):  # to the last digit
        pose, focal = known.poses.get(image), known.focals.get(image)
        if pose is not None and not isinstance(pose, PosePrior):
            poses[n] = pose
        if focal is not None and not isinstance(focal, FocalPrior):
            focals[n] = focal
    return Alignment(
        images=images,
        poses=poses,
        focals=focals,
        depths=dense.depths,
        confidences=dense.confidences,
        pair_similarities=similarities,
        parts=tuple(other.problem.images for other in parts),
        unplaced=tuple(sorted({node for p in predictions for node in (p.i, p.j)} - set(images))),
        objective=float(0.5 * dense.pair_cost.mean() / mean_scale(state)),
        dropped=dropped,
        others=(),
        history=tuple(part.history),
    )
