"""Focal length, radial distortion and readout of a camera that nobody calibrated, by bundle adjustment over its first keyframes.

The flows say where anchors of one view lie in others; three unknowns that all views share say what rays those pixels have. A lens bends
straight lines, a wrong focal length bends depth, and rows that are read one after the other lean with the camera's turning: no motion of
the camera looks like any of it for long (Hartley and Zisserman 2004, chapter 19; Hedborg et al., CVPR 2012). Without enough motion the
guess stands, and the uncertainty says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.calibration import Calibration, shift
from dust3r_ros.estimators.flow.bundle_equations import (
    POINT_SIGMA,
    Linearisation,
    Observations,
    linearise,
    moved,
    normal_equations,
    shared_information,
    solve,
)
from dust3r_ros.estimators.flow.graph import graph_of
from dust3r_ros.estimators.flow.lens import UNKNOWNS, Lens, LensObservations, believed, camera_with, is_radial
from dust3r_ros.estimators.flow.view import View
from dust3r_ros.estimators.protocol import Tokens

Floats = NDArray[np.float64]

SPAN = 3  # keyframes apart that two views may be
# Of the logarithm of a focal length, of k1, and of the readout in seconds: guessed, or measured by somebody
GUESSED, MEASURED = np.array([0.25, 0.1, 0.02]), np.array([1e-4, 1e-4, 0.02])
# Errors of flow are the same for many points of a view, so that much less is known than independent errors of POINT_SIGMA would leave.
# Windows of one hand-held sequence, each calibrated alone, scatter about so much more.
INFLATION = 8.0
ITERATIONS = 30
STEP = 1e-4  # of the numerical slopes along the lens
LARGEST_MOVE = 0.15  # of the lens in one iteration
FIRST_DAMPING = 1e-3


def calibrate(tokens: Sequence[Tokens], views: Sequence[View], turns: Sequence[Floats], is_measured: bool) -> Calibration | None:
    """From keyframes of one camera, oldest first, that a joint solution has placed; None if it has not, or the camera is no such lens."""
    source = tokens[0].source
    if any(token.source != source for token in tokens) or not (is_measured or is_radial(source)):
        return None
    found = _placed(views)
    if found is None:
        return None
    observations, poses, inverse_depth = found
    prior = MEASURED if is_measured else GUESSED
    start = Lens(0.0, 0.0) if is_measured else believed(source)
    pixels = LensObservations(observations, source.pinhole() if is_measured else source, np.stack(list(turns)))
    lens, information = lens_of(pixels, poses, inverse_depth, start, prior)
    sigma = np.sqrt(np.diag(np.linalg.inv(information))) * POINT_SIGMA * INFLATION
    camera = source if is_measured else camera_with(source, lens)
    return Calibration(
        camera, float(sigma[0]), float(sigma[1]), shift(source, camera, tokens[0].camera), lens.readout, _readout_sigma(sigma[2], prior[2])
    )


def _readout_sigma(sigma: float, prior: float) -> float:
    return float(sigma) if sigma < 0.9 * prior else np.inf


def _placed(views: Sequence[View]) -> tuple[Observations, Floats, Floats] | None:
    """What is observed, poses [V, 4, 4] and inverse depths [V, N] as the windows left them; None if those do not hang together."""
    solved = [view.solved for view in views]
    chains = {None if one is None else one.chain for one in solved}
    if len(chains) != 1 or None in chains:
        return None
    edges = [(a, b) for a, b in combinations(range(len(views)), 2) if b - a <= SPAN]
    observations = graph_of(views, edges).observations
    if len({int(view) for view in observations.pairs.ravel()}) < len(views):
        return None
    inverse_depth = np.zeros(observations.known.shape)
    for row, one in zip(inverse_depth, solved, strict=True):
        assert one is not None
        row[: len(one.anchor_inverse_depth)] = one.anchor_inverse_depth
    weight = np.where(inverse_depth[observations.pairs[:, 0]] > 0, observations.weight, 0.0)
    poses = np.stack([one.pose for one in solved if one is not None])
    return replace(observations, weight=weight), poses, inverse_depth


def lens_of(pixels: LensObservations, poses: Floats, inverse_depth: Floats, lens: Lens, sigmas: Floats) -> tuple[Lens, Floats]:
    """The lens and what is known of it [3, 3] (in units of POINT_SIGMA), with poses and depths free. Levenberg-Marquardt."""
    prior = (POINT_SIGMA * INFLATION / sigmas) ** 2
    damping = FIRST_DAMPING

    def linearised(poses: Floats, inverse_depth: Floats, lens: Lens) -> tuple[Observations, Linearisation, float]:
        seen = pixels.through(lens)
        state = linearise(seen, poses, inverse_depth)
        return seen, state, state.cost + float(prior @ lens.vector**2)

    seen, state, cost = linearised(poses, inverse_depth, lens)
    for _ in range(ITERATIONS):
        state = replace(state, by_shared=_slopes(pixels, poses, inverse_depth, lens))
        normal = normal_equations(seen, inverse_depth, state)
        normal.hessian[-UNKNOWNS:, -UNKNOWNS:] += np.diag(prior)
        normal.gradient[-UNKNOWNS:] += prior * lens.vector
        while True:
            move, deeper = solve(normal, damping)
            step = np.clip(move[-UNKNOWNS:], -LARGEST_MOVE, LARGEST_MOVE)
            candidate = moved(poses, move[:-UNKNOWNS]), inverse_depth + deeper.reshape(inverse_depth.shape), lens.moved(step)
            new_seen, new_state, new_cost = linearised(*candidate)
            if new_cost < cost or damping > 1e6:
                break
            damping *= 10
        if new_cost >= cost:
            break
        finished = cost - new_cost < 1e-6 * cost
        (poses, inverse_depth, lens), seen, state, cost = candidate, new_seen, new_state, new_cost
        damping = max(damping / 5, 1e-7)
        if finished:
            break
    return lens, shared_information(normal, UNKNOWNS)


def _slopes(pixels: LensObservations, poses: Floats, inverse_depth: Floats, lens: Lens) -> Floats:
    """[P, N, 2, 3] of the residuals along the lens's unknowns."""
    columns = []
    for step in np.eye(UNKNOWNS) * STEP:
        ahead, behind = (linearise(pixels.through(lens.moved(by)), poses, inverse_depth).residual for by in (step, -step))
        columns.append((ahead - behind) / (2 * STEP))
    return np.stack(columns, -1)
