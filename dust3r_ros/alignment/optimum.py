"""From a spanning tree's scene to the one of least objective: poses, focal lengths and pairs on chosen pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.known_poses import pose_similarity
from dust3r_ros.alignment.linear_system import Layout, make_layout
from dust3r_ros.alignment.pair_motions import PairMotions
from dust3r_ros.alignment.priors import Priors
from dust3r_ros.alignment.problem import Array, Problem, State
from dust3r_ros.alignment.refine import Constraints, Progress, Stage, evaluate, refine
from dust3r_ros.geometry import Similarity

COARSE = (Stage(100, 5e-2, 0.0, 12, 3e-3), Stage(100, 1e-2, 0.9, 30, 1e-3))
# Near the optimum a step of Newton's leaves a gain squared.
FINE = (Stage(300, 3e-3, 0.9, 20, 1e-2), Stage(1600, 7e-4, 0.95, 12, 2e-3))
LONG = 40  # images
PIXELS = 1600  # chosen of each image


@dataclass(frozen=True, eq=False)
class Given:
    """What is known of a problem's images, by position."""

    fixed_poses: Mapping[int, Array]  # [4, 4]
    fixed_focals: NDArray[np.bool_]  # [N]
    group: NDArray[np.int64]  # [N] images of one number share their focal length
    priors: Priors
    motions: PairMotions


def settle(problem: Problem, state: State, given: Given, stages: tuple[Stage, ...], began: float) -> tuple[State, list[Progress]]:
    """Through the stages in the frame of the first image, on the scale of the pairs."""
    return _through(problem, state, _layout(problem, given, [0]), stages, Constraints(motions=given.motions or None), began)


def bring_into_frame(problem: Problem, state: State, given: Given, stages: tuple[Stage, ...], began: float) -> tuple[State, list[Progress]]:
    """A settled scene into the frame of what is known, and settled there: only now, for from the tree's the size would come slowly."""
    known, priors = sorted(given.fixed_poses), given.priors
    if known:
        given_poses = np.stack([given.fixed_poses[n] for n in known])
        state = in_frame(state, pose_similarity(state.poses[known], given_poses))
        state.rotation[known], state.position[known] = given_poses[:, :3, :3], given_poses[:, :3, 3]
    else:
        frame = priors.frame(state)
        state = in_frame(state, frame) if frame is not None else state
    ratio = priors.scale_of_motions(state) if len(known) < 2 and not priors.has_poses else None
    if ratio is not None:
        held = state.position[known[0]] if known else np.zeros(3)
        state = in_frame(state, Similarity(ratio, np.eye(3), (1.0 - ratio) * held))
    if len(known) < 2 and not priors:
        return state, []
    held_poses = known if known else [] if priors.has_poses else [0]
    holds_scale = len(known) > 1 or priors.hold_scale
    constraints = Constraints(holds_scale, priors or None, given.motions or None)
    return _through(problem, state, _layout(problem, given, held_poses), stages, constraints, began)


def _layout(problem: Problem, given: Given, held: list[int]) -> Layout:
    fixed = np.isin(np.arange(len(problem.images)), held)
    return make_layout(problem, fixed, given.fixed_focals, given.group, given.priors.ties)


def _through(
    problem: Problem, state: State, layout: Layout, stages: tuple[Stage, ...], constraints: Constraints, began: float
) -> tuple[State, list[Progress]]:
    history: list[Progress] = []
    size = float(np.median(state.depth))
    long = min(1.0, LONG / len(problem.images))
    for stage in stages:
        if stage in COARSE:  # a long chain's bend is a small part of the objective
            stage = replace(stage, settled=stage.settled * long)
        part = problem.first(stage.pixels)
        if state.depth.shape[1] != part.pixels.shape[2]:
            state = replace(state, depth=np.full((len(part.images), part.pixels.shape[2]), size))
            state, _ = evaluate(part, state, 1e-2 * size, anew=True)
        state, more = refine(part, state, layout, stage, constraints, began)
        history += more
    return state, history


def in_frame(state: State, frame: Similarity) -> State:
    """The whole scene moved."""
    rotation = frame.rotation
    return State(
        rotation=rotation @ state.rotation,
        position=frame.scale * state.position @ rotation.T + frame.translation,
        focal=state.focal.copy(),
        pair_rotation=rotation @ state.pair_rotation,
        pair_translation=frame.scale * state.pair_translation @ rotation.T + frame.translation,
        pair_scale=frame.scale * state.pair_scale,
        depth=frame.scale * state.depth,
    )
