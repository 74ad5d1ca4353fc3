"""Focal length and radial distortion of a camera that nobody calibrated, by bundle adjustment over its first keyframes.

The flows say where anchors of one view lie in others; two unknowns that all views share say what rays those pixels have. A lens bends
straight lines and a wrong focal length bends depth: no motion of the camera looks like either for long (Hartley and Zisserman 2004,
chapter 19). Without enough motion the guess stands, and the uncertainty says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators.calibration import Calibration
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
from dust3r_ros.estimators.flow.view import View
from dust3r_ros.estimators.protocol import Tokens
from dust3r_ros.geometry import Camera

Floats = NDArray[np.float64]

SPAN = 3  # keyframes apart that two views may be
PRIOR_SIGMAS = np.array([0.25, 0.1])  # of the logarithm of a guessed focal length, of k1
# Errors of flow are the same for many points of a view, and a rolling shutter bends whole views: so many times less is known
# than independent errors of POINT_SIGMA would leave. Windows of one hand-held sequence, each calibrated alone, scatter that much.
INFLATION = 8.0
ITERATIONS = 30
STEP = 1e-4  # of the numerical slopes along the lens
LARGEST_MOVE = 0.15  # of the lens in one iteration
FIRST_DAMPING = 1e-3
PROBES = 9  # rays a side at which two cameras are compared


@dataclass(frozen=True, eq=False)
class Lens:
    """Of a camera believed in so far: `exp(log_focal)` times its focal length, and `x_u = x_d (1 + bend |x_d|^2)` for normalised pixels."""

    log_focal: float
    bend: float

    @property
    def vector(self) -> Floats:
        return np.array([self.log_focal, self.bend])

    def undistorted(self, pixels: Floats) -> Floats:
        """[..., 2] pixels over the believed focal length -> [..., 2] x / z and y / z."""
        own = np.exp(-self.log_focal) * pixels
        return np.asarray(own * (1 + self.bend * np.sum(own * own, -1, keepdims=True)))

    def moved(self, step: Floats) -> Lens:
        return Lens(self.log_focal + float(step[0]), self.bend + float(step[1]))


def calibrate(tokens: Sequence[Tokens], views: Sequence[View]) -> Calibration | None:
    """From keyframes of one camera, oldest first, that a joint solution has placed; None if it has not, or the camera is no such lens."""
    source = tokens[0].source
    if any(token.source != source for token in tokens) or not _is_radial(source):
        return None
    found = _placed(views)
    if found is None:
        return None
    observations, poses, inverse_depth = found
    lens = Lens(0.0, _bend(source))
    pixels = replace(observations, rays=_pixels(observations.rays, source), seen=_pixels(_rays(observations.seen), source)[..., :2])
    lens, information = _solved(pixels, poses, inverse_depth, lens)
    sigma = np.sqrt(np.diag(np.linalg.inv(information))) * POINT_SIGMA * INFLATION
    camera = _camera(source, lens)
    return Calibration(camera, float(sigma[0]), float(sigma[1]), _shift(source, camera, tokens[0].camera))


def _is_radial(camera: Camera) -> bool:
    """Whether nothing but k1 (and the k2 that makes our polynomial the usual one) bends its rays."""
    return camera.is_pinhole or (camera.model == "plumb_bob" and not any(camera.distortion[2:]))


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


def _rays(seen: Floats) -> Floats:
    return np.concatenate([seen, np.ones((*seen.shape[:-1], 1))], -1)


def _pixels(rays: Floats, source: Camera) -> Floats:
    """[..., 3] rays of the believed camera -> its own pixels, over its focal length, with a third column of ones."""
    pixels = source.project(rays)
    return _rays(np.nan_to_num((pixels - (source.cx, source.cy)) / (source.fx, source.fy)))


def _solved(pixels: Observations, poses: Floats, inverse_depth: Floats, lens: Lens) -> tuple[Lens, Floats]:
    """The lens and what is known of it [2, 2] (in units of POINT_SIGMA), with poses and depths free. Levenberg-Marquardt."""
    prior = (POINT_SIGMA * INFLATION / PRIOR_SIGMAS) ** 2
    guess = np.zeros(2)
    damping = FIRST_DAMPING

    def linearised(poses: Floats, inverse_depth: Floats, lens: Lens) -> tuple[Observations, Linearisation, float]:
        seen = _through(pixels, lens)
        state = linearise(seen, poses, inverse_depth)
        return seen, state, state.cost + float(prior @ (lens.vector - guess) ** 2)

    seen, state, cost = linearised(poses, inverse_depth, lens)
    for _ in range(ITERATIONS):
        state = replace(state, by_shared=_slopes(pixels, poses, inverse_depth, lens))
        normal = normal_equations(seen, inverse_depth, state)
        normal.hessian[-2:, -2:] += np.diag(prior)
        normal.gradient[-2:] += prior * (lens.vector - guess)
        while True:
            move, deeper = solve(normal, damping)
            step = np.clip(move[-2:], -LARGEST_MOVE, LARGEST_MOVE)
            candidate = moved(poses, move[:-2]), inverse_depth + deeper.reshape(inverse_depth.shape), lens.moved(step)
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
    return lens, shared_information(normal, 2)


def _through(pixels: Observations, lens: Lens) -> Observations:
    """The observations as rays; their errors stay pixels of the sensor."""
    rays = _rays(lens.undistorted(pixels.rays[..., :2]))
    return replace(pixels, rays=rays, seen=lens.undistorted(pixels.seen), focal=pixels.focal * np.exp(lens.log_focal))


def _slopes(pixels: Observations, poses: Floats, inverse_depth: Floats, lens: Lens) -> Floats:
    """[P, N, 2, 2] of the residuals along the lens's two unknowns."""
    columns = []
    for step in np.eye(2) * STEP:
        ahead, behind = (linearise(_through(pixels, lens.moved(by)), poses, inverse_depth).residual for by in (step, -step))
        columns.append((ahead - behind) / (2 * STEP))
    return np.stack(columns, -1)


def _bend(source: Camera) -> float:
    """Of a camera that `_camera` made, or of one without distortion."""
    return -source.distortion[0] if source.distortion else 0.0


def _camera(source: Camera, lens: Lens) -> Camera:
    """`source` with the lens's focal length and, as k1 and k2 of plumb_bob, its distortion: fitted over the whole picture."""
    ratio = np.exp(lens.log_focal)
    fx, fy = source.fx * ratio, source.fy * ratio
    corner = np.hypot(max(source.cx, source.width - source.cx) / fx, max(source.cy, source.height - source.cy) / fy)
    distorted = np.linspace(0.0, float(corner), 50)[1:]
    straight = distorted * (1 + lens.bend * distorted**2)
    powers = np.stack([straight**3, straight**5], -1)
    k1, k2 = np.linalg.lstsq(powers, distorted - straight, rcond=None)[0]
    return replace(source, fx=fx, fy=fy, model="plumb_bob", distortion=(float(k1), float(k2), 0.0, 0.0), assumed=False)


def _shift(before: Camera, after: Camera, working: Camera) -> float:
    """Pixels of the working image between where the two cameras see the same pixels of their picture, at most over a grid of it."""
    grid = np.stack(np.meshgrid(np.linspace(0, before.width - 1, PROBES), np.linspace(0, before.height - 1, PROBES)), -1)
    apart = before.unproject(grid)[..., :2] - after.unproject(grid)[..., :2]
    return float(np.nanmax(np.linalg.norm(apart, axis=-1))) * working.fx
