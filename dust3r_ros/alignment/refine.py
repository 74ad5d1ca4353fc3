"""From a start to the optimum: Levenberg-Marquardt over pairs, poses and focal lengths, the depths fitted anew after every step."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.compiled import EDGE, POSE
from dust3r_ros.alignment.linear_system import Layout, LinearSystem, Model
from dust3r_ros.alignment.pair_motions import PairMotions
from dust3r_ros.alignment.priors import Priors
from dust3r_ros.alignment.problem import Problem, State
from dust3r_ros.alignment.terms import Terms, terms_of

Array = NDArray[np.float64]

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-6, 1e-9, 1e3
SHORTER = (1.0, 0.5, 0.25)  # of a step, before more damping is tried
SMALLER, LARGER = 5.0, 10.0
MOST_TRIES = 8  # dampings tried at one linearisation


@dataclass(frozen=True)
class Stage:
    """How many pixels, how the norm is smoothed, and when it is enough."""

    pixels: int  # of each image
    eps: float  # of the median depth
    alpha: float  # 0: reweighted least squares, towards 1: Newton
    steps: int  # at most
    settled: float  # relative gain, promised and real, at which it ends


@dataclass(frozen=True)
class Progress:
    """After each accepted step."""

    stage: Stage
    seconds: float  # since the alignment began
    objective: float  # smoothed, over the chosen pixels
    damping: float


@dataclass(frozen=True, eq=False)
class Constraints:
    """What else holds the scene: `free_scale`, known poses or priors hold its size; `priors` and the pairs' own motions pull."""

    free_scale: bool = False
    priors: Priors | None = None
    motions: PairMotions | None = None

    def weigh(self, objective: float, pairs: int) -> None:
        """Set what they count, from the objective that the scene has without them."""
        for one in (self.priors, self.motions):
            if one is not None:
                one.weigh(objective, pairs)

    def cost(self, state: State) -> float:
        """In the objective's units."""
        return sum(one.cost(state) for one in (self.priors, self.motions) if one is not None)

    def add_to(self, system: LinearSystem, layout: Layout, state: State, scale: float) -> None:
        """Their second order; `scale`: what the objective was multiplied by."""
        for one in (self.priors, self.motions):
            if one is not None:
                one.add_to(system, layout, state, scale)


def refine(
    problem: Problem, state: State, layout: Layout, stage: Stage, constraints: Constraints, began: float = 0.0
) -> tuple[State, list[Progress]]:
    """The state of least objective that the stage reaches; depths are fitted first, and what pulls is weighed against what it is then."""
    known = (problem.weight > 0).any()
    size = float(np.median(state.depth)) if known else 1.0
    eps, damping = stage.eps * size, FIRST_DAMPING
    terms = terms_of(problem)
    state, alone = _evaluate(terms, state, eps, Constraints())
    constraints.weigh(alone, problem.pairs)
    now = alone + constraints.cost(state)
    history: list[Progress] = []
    for _ in range(stage.steps):
        system = LinearSystem(terms.model(state, eps, stage.alpha), layout)
        # The objective is divided by the mean scale: shrinking the pairs alone must not pay.
        scale = mean_scale(state)
        pull = now * scale / problem.pairs
        constraints.add_to(system, layout, state, scale)
        pull -= constraints.cost(state) * scale / problem.pairs
        found = None
        for _ in range(MOST_TRIES):
            whole = system.step(damping, constraints.free_scale, pull)
            for share in SHORTER if whole is not None else ():
                assert whole is not None
                step = share * whole
                candidate, value = _evaluate(terms, moved(state, step, layout), eps, constraints)
                if value < now:
                    found = candidate
                    break
            if found is not None:
                break
            damping = min(damping * LARGER, MOST_DAMPING)
        if found is None:
            break
        promised = 0.5 * float(step @ (pull * layout.is_scale - system.gradient)) / (now * scale)
        state, gain, now = found, max(1.0 - value / now, promised), value
        history.append(Progress(stage, time.perf_counter() - began, now, damping))
        damping = max(damping / SMALLER, LEAST_DAMPING)
        if gain < stage.settled:
            break
    return state, history


def evaluate(
    problem: Problem, state: State, eps: float, constraints: Constraints = Constraints(), anew: bool = False
) -> tuple[State, float]:
    """The state with its depths fitted, and the objective over the chosen pixels, its norm smoothed by eps.

    Divided by the geometric mean of the pairs' scales, so that it means the same for scenes of any size. `anew`: depths from the best
    single pair's, else from what they are.
    """
    return _evaluate(terms_of(problem), state, eps, constraints, anew)


def model(problem: Problem, state: State, eps: float, alpha: float) -> Model:
    """The objective's second order at a state, each image alone, its depths eliminated."""
    return terms_of(problem).model(state, eps, alpha)


def _evaluate(terms: Terms, state: State, eps: float, constraints: Constraints, anew: bool = False) -> tuple[State, float]:
    depth, cost = terms.evaluate(state, eps, anew)
    fitted = replace(state, depth=depth)
    value = cost / mean_scale(state)
    return fitted, value + constraints.cost(fitted)


def mean_scale(state: State) -> float:
    return float(np.exp(np.log(state.pair_scale).mean()))


def moved(state: State, step: Array, layout: Layout) -> State:
    """The state after increments [size]; what is fixed stays."""
    padded = np.append(step, np.zeros(EDGE))

    def of(first: NDArray[np.int64], width: int) -> Array:
        return padded[np.where(first[:, None] >= 0, first[:, None] + np.arange(width), len(step))]

    pair, pose, focal = of(layout.pair, EDGE), of(layout.pose, POSE), of(layout.focal, 1)[:, 0]
    turn_pair, turn_pose, grow = turned(pair[:, :3]), turned(pose[:, :3]), np.exp(pair[:, 6])
    return State(
        rotation=turn_pose @ state.rotation,
        position=np.einsum("nij,nj->ni", turn_pose, state.position) + pose[:, 3:],
        focal=state.focal * np.exp(focal),
        pair_rotation=turn_pair @ state.pair_rotation,
        pair_translation=grow[:, None] * np.einsum("nij,nj->ni", turn_pair, state.pair_translation) + pair[:, 3:6],
        pair_scale=state.pair_scale * grow,
        depth=state.depth,
    )


def turned(vector: Array) -> Array:
    """Rotation vectors [N, 3] to matrices [N, 3, 3] (Rodrigues)."""
    angle = np.linalg.norm(vector, axis=-1)[:, None, None]
    cross = np.zeros((len(vector), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -vector[:, 2], vector[:, 1], -vector[:, 0]
    cross -= cross.transpose(0, 2, 1)
    safe = np.maximum(angle, 1e-12)
    sine = np.where(angle < 1e-6, 1.0 - angle**2 / 6, np.sin(angle) / safe)
    cosine = np.where(angle < 1e-6, 0.5 - angle**2 / 24, (1.0 - np.cos(angle)) / safe**2)
    return np.eye(3) + sine * cross + cosine * cross @ cross
