"""How many metres a map unit is, from the known distances between the cameras of a rig. What is measured needs no metric map.

Two ways. Where a camera sees what the map has from another one, it is placed there by pairs (`placing`), and its distance to the leader in
map units stands beside the known one. Where the cameras never see the same, the way that each of them goes tells: when the rig turns, a
camera at a distance goes another way, by an amount that the distance gives (Clipp et al., Robust 6DOF motion estimation for
non-overlapping, multi-camera systems, WACV 2008).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.alignment.similarity_fit import fit_similarity
from dust3r_ros.estimators import Estimator, PairPrediction, Tokens
from dust3r_ros.geometry import inverse_pose, rotation_angle
from dust3r_ros.mapping.places.placing import place_picture
from dust3r_ros.mapping.types import Keyframe

Array = NDArray[np.float64]

MIN_BASELINE = 0.02  # metres between two cameras, to measure anything by
SAME_TURN = 0.1  # rad between where a camera looks and where the extrinsics say
PLACED_WITHIN = 0.003  # share of the depth: error of a placed camera, one standard deviation
DIRECTION = 0.015  # rad: error of the direction in which a pair says that a camera went
MAX_SIGMA = 0.3  # of a log ratio: a sample that says less is none
TRUSTED, MIN_SHARE, ROUNDS = 1.5, 0.05, 5


@dataclass(frozen=True)
class Sample:
    """Metres per map unit by one measurement."""

    ratio: float
    sigma: float  # of its logarithm


def sample_of_place(mount: Array, placed: Array, depth: float) -> Sample | None:
    """`mount`: a camera in the leader, metres; `placed`: the same as the map has it, map units; `depth`: typical, map units.

    None if they contradict each other, or are too near to tell.
    """
    known, measured = mount[:3, 3], placed[:3, 3]
    length = float(np.linalg.norm(known))
    if length < MIN_BASELINE or rotation_angle(mount[:3, :3].T @ placed[:3, :3]) > SAME_TURN:
        return None
    along = float(measured @ known) / length  # map units
    aside = float(np.linalg.norm(measured - along * known / length))
    error = PLACED_WITHIN * depth
    if along <= 0 or aside > max(10.0 * error, 0.3 * along) or error > MAX_SIGMA * along:
        return None
    return Sample(length / along, error / along)


def sample_of_motion(mount: Array, leader: Array, camera: Array) -> Sample | None:
    """`mount`: a camera in the leader, metres. `leader`: how that moved, [4, 4] later to earlier, map units; `camera`: how the camera
    itself did, on any scale of its own.

    With X the mount and x its translation in map units, X^-1 A X goes R_X^T (t_A + (R_A - I) x): its direction is known, x in metres is.
    None if the rig hardly turned, or they contradict each other.
    """
    turn = mount[:3, :3]
    if rotation_angle(camera[:3, :3].T @ turn.T @ leader[:3, :3] @ turn) > SAME_TURN:
        return None
    way = float(np.linalg.norm(camera[:3, 3]))
    if not way > 0:
        return None
    direction = camera[:3, 3] / way
    common, lever = turn.T @ leader[:3, 3], turn.T @ (leader[:3, :3] - np.eye(3)) @ mount[:3, 3]
    a, b = np.cross(direction, common), np.cross(direction, lever)
    if not float(b @ b) > 1e-12:
        return None
    units = -float(a @ b) / float(b @ b)  # map units per metre
    went = common + units * lever
    error = DIRECTION * float(np.linalg.norm(went)) / float(np.linalg.norm(b))
    if units <= 0 or float(went @ direction) <= 0 or error > MAX_SIGMA * units:
        return None
    return Sample(1.0 / units, error / units)


def together(samples: Sequence[Sample]) -> Sample | None:
    """One sample of several of the same moment."""
    if not samples:
        return None
    weight = np.array([1.0 / one.sigma**2 for one in samples])
    mean = float(weight @ np.log([one.ratio for one in samples]) / weight.sum())
    return Sample(math.exp(mean), float(1.0 / math.sqrt(weight.sum())))


class RigScale:
    """Measures at keyframes of the leader."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self._before: dict[str, tuple[int, Tokens]] = {}  # by camera: the leader's keyframe of that moment, and what it saw

    def measure(
        self,
        mount: Array,
        name: str,
        tokens: Tokens,
        leader: Keyframe,
        shown: Sequence[tuple[Keyframe, Tokens]],
        poses: Mapping[int, Array],
    ) -> list[Sample]:
        """What one camera says. `mount`: in the leader, metres; `leader`: its keyframe of the moment; `shown`: keyframes of other
        cameras; `poses`: of all keyframes, camera to world.
        """
        found = [self._placed(mount, tokens, leader, shown), self._moved(mount, name, tokens, leader, poses)]
        self._before[name] = leader.index, tokens
        return [one for one in found if one is not None]

    def _placed(self, mount: Array, tokens: Tokens, leader: Keyframe, shown: Sequence[tuple[Keyframe, Tokens]]) -> Sample | None:
        if not shown:
            return None
        views = {keyframe.index: seen for keyframe, seen in shown}
        where = place_picture([keyframe for keyframe, _ in shown], views, self._estimator, tokens)
        if where.pose is None or where.depth is None:
            return None
        return sample_of_place(mount, inverse_pose(leader.pose) @ where.pose, float(np.median(where.depth[where.depth > 0])))

    def _moved(self, mount: Array, name: str, tokens: Tokens, leader: Keyframe, poses: Mapping[int, Array]) -> Sample | None:
        index, before = self._before.get(name, (-1, tokens))
        if index not in poses:
            return None
        estimated = self._estimator.estimate({0: before, 1: tokens}, [(0, 1), (1, 0)])
        both = {(p.i, p.j): p for p in estimated}
        camera = _motion(both[0, 1], both[1, 0])
        return None if camera is None else sample_of_motion(mount, inverse_pose(poses[index]) @ leader.pose, camera)


def _motion(forth: PairPrediction, back: PairPrediction) -> Array | None:
    """[4, 4] the second camera in the first, on the scale of `forth`: where its own points (of `back`) lie there."""
    own, seen = back.points_i.cpu().numpy(), forth.points_j.cpu().numpy()
    sure = (back.confidence_i.cpu().numpy() >= TRUSTED) & (forth.confidence_j.cpu().numpy() >= TRUSTED) & np.isfinite(own + seen).all(-1)
    if sure.mean() < MIN_SHARE:
        return None
    source, target = (np.ascontiguousarray(points[sure].T.astype(np.float64)) for points in (own, seen))
    rotation, translation, scale, _ = fit_similarity(source, target, np.full(source.shape[1], 1.0 / source.shape[1]), ROUNDS)
    if not scale > 0:
        return None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose
