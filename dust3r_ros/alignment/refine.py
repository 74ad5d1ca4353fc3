"""From a start to the optimum: Levenberg-Marquardt over pairs, poses and focal lengths, the depths fitted anew after every step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dust3r_ros.alignment.depths import along_rays, best_candidate, refined
from dust3r_ros.alignment.linear_system import Layout, LinearSystem
from dust3r_ros.alignment.normal_equations import EDGE, POSE, normal_equations, smoothed
from dust3r_ros.alignment.problem import Problem, State

DEPTH_ROUNDS = 3  # reweightings after each step
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-6, 1e-9, 1e3
SMALLER, LARGER = 5.0, 10.0
MOST_TRIES = 8  # dampings tried at one linearisation


@dataclass(frozen=True)
class Stage:
    """How the norm is smoothed, and when it is enough."""

    eps: float  # of the median depth
    alpha: float  # 0: reweighted least squares, towards 1: Newton
    steps: int  # at most
    settled: float  # relative change of the objective at which it ends


COARSE = (Stage(5e-2, 0.0, 6, 1e-2), Stage(1e-2, 0.9, 12, 2e-3))
FINE = (Stage(3e-3, 0.9, 20, 2e-4), Stage(1e-3, 0.95, 30, 2e-5))


@dataclass(frozen=True)
class Progress:
    """After each accepted step."""

    stage: Stage
    objective: float  # smoothed, over the chosen pixels
    damping: float


def refine(problem: Problem, state: State, layout: Layout, stages: tuple[Stage, ...], free_scale: bool) -> tuple[State, list[Progress]]:
    """The state of least objective that the stages reach; depths are found first. `free_scale`: known poses hold the scene's size."""
    size = float(state.depth[problem.known].median()) if bool(problem.known.any()) else 1.0
    state = with_depths(problem, state, 1e-2 * size, anew=True)
    history: list[Progress] = []
    for stage in stages:
        eps, damping = stage.eps * size, FIRST_DAMPING
        state = with_depths(problem, state, eps)
        now = smoothed(problem, state, eps)
        for _ in range(stage.steps):
            system = LinearSystem(normal_equations(problem, state, eps, stage.alpha), layout)
            found = None
            # The objective is divided by the mean scale: shrinking the pairs alone must not pay.
            pull = now * float(state.edge_scale.log().mean().exp()) / problem.pairs
            for _ in range(MOST_TRIES):
                step = system.step(damping, free_scale, pull)
                if step is not None:
                    candidate = with_depths(problem, moved(state, step, layout), eps)
                    value = smoothed(problem, candidate, eps)
                    if value < now:
                        found = candidate
                        break
                damping = min(damping * LARGER, MOST_DAMPING)
            if found is None:
                break
            state, gain, now = found, 1.0 - value / now, value
            history.append(Progress(stage, now, damping))
            damping = max(damping / SMALLER, LEAST_DAMPING)
            if gain < stage.settled:
                break
    return state, history


def with_depths(problem: Problem, state: State, eps: float, anew: bool = False) -> State:
    """Each pixel's depth fitted to the pairs as they lie now; `anew`: from the best single pair's, else from the depth it has."""
    a, b, square = along_rays(state.targets(problem), state.position, state.directions(problem))
    start = best_candidate(a, b, problem.weight, square) if anew else state.depth
    return replace(state, depth=refined(start, a, b, problem.weight, square, eps, DEPTH_ROUNDS))


def moved(state: State, step: NDArray[np.float64], layout: Layout) -> State:
    """The state after increments [size]; what is fixed stays."""
    padded = torch.from_numpy(np.append(step, np.zeros(EDGE)))

    def of(first: NDArray[np.int64], width: int) -> Tensor:
        index = torch.from_numpy(np.where(first[:, None] >= 0, first[:, None] + np.arange(width), len(step)))
        return padded[index]

    pair, pose, focal = of(layout.pair, EDGE), of(layout.pose, POSE), of(layout.focal, 1)[:, 0]
    turn_pair, turn_pose, grow = turned(pair[:, :3]), turned(pose[:, :3]), pair[:, 6].exp()
    return State(
        rotation=turn_pose @ state.rotation,
        position=(turn_pose @ state.position[..., None])[..., 0] + pose[:, 3:],
        focal=state.focal * focal.exp(),
        edge_rotation=turn_pair @ state.edge_rotation,
        edge_translation=grow[:, None] * (turn_pair @ state.edge_translation[..., None])[..., 0] + pair[:, 3:6],
        edge_scale=state.edge_scale * grow,
        depth=state.depth,
    )


def turned(vector: Tensor) -> Tensor:
    """Rotation vectors [N, 3] to matrices [N, 3, 3] (Rodrigues)."""
    angle = vector.norm(dim=-1)[:, None, None]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).view(-1, 3, 3)
    small = angle < 1e-6
    sine = torch.where(small, 1.0 - angle**2 / 6, angle.sin() / angle.clamp(min=1e-12))
    cosine = torch.where(small, 0.5 - angle**2 / 24, (1.0 - angle.cos()) / angle.clamp(min=1e-12) ** 2)
    return torch.eye(3, dtype=vector.dtype) + sine * cross + cosine * cross @ cross
