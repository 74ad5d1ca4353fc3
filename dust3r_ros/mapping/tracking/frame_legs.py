"""The ways from keyframe to keyframe along which frames were followed, so that frames between two agree with where both came to lie.

A keyframe was followed from the one before it, and is placed by its own pairs: the two differ, and each has errors of its own. For the
trajectory keyframes lie where both agree best, in the map as it is by then. What difference is left is spread over the frames on the way by
their time: at the one end they stand by the one, at the other by the other.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

# Weights of a way that was followed, where that of a keyframe's place in the map is 1.
USUAL, USUAL_LEGS = 2.0, 4  # with few legs little is known of how much the keyframes err: it counts for as many
AT_MOST = 5.0
HELD = 1e6

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Leg:
    """From one keyframe on."""

    begin: int  # ns: since then frames are followed from it
    end: int = 0  # ns, when `to` was taken
    to: int | None = None  # the next keyframe; None: there is none yet
    own: Array | None = None  # [4, 4] that frame's camera to the first keyframe's as it was followed, in the first one's unit
    variance: tuple[float, float] = (0.0, 0.0)  # of it: its rotation's, rad^2, and its place's, in the first one's unit squared


class FrameLegs:
    """By keyframe, as often as frames were followed from it."""

    def __init__(self) -> None:
        self._legs: dict[int, list[Leg]] = {}

    def clear(self) -> None:
        self._legs.clear()

    def begin(self, keyframe: int, stamp: int) -> None:
        """From `stamp` (ns) on frames are followed from this keyframe."""
        self._legs.setdefault(keyframe, []).append(Leg(stamp))

    def end(self, keyframe: int, stamp: int, to: int, own: Array, variance: tuple[float, float]) -> None:
        """The frame of `stamp`, at `own` (4x4, to this keyframe, in its unit), has become keyframe `to`.

        `variance`: of its rotation, rad^2, and its place, own unit squared; each the sum over the axes.
        """
        legs = self._legs.get(keyframe)
        if legs and legs[-1].to is None and stamp > legs[-1].begin:
            legs[-1] = replace(legs[-1], end=stamp, to=to, own=own, variance=variance)

    def revise(self, found: Mapping[tuple[int, int], Array]) -> None:
        """Frames by stamp and keyframe lie so after all, in the keyframe's unit."""
        for (stamp, keyframe), own in found.items():
            legs = self._legs.get(keyframe, [])
            for at, leg in enumerate(legs):
                if leg.to is not None and leg.end == stamp:
                    legs[at] = replace(leg, own=own)

    def take_over(self, other: FrameLegs, new_index: Mapping[int, int]) -> None:
        """Those of a map piece, whose keyframes have other indices here."""
        for keyframe, legs in other._legs.items():
            if keyframe in new_index:
                moved = [
                    leg if leg.to is None else replace(leg, to=new_index[leg.to]) for leg in legs if leg.to is None or leg.to in new_index
                ]
                self._legs[new_index[keyframe]] = moved

    def placed(self, frames: Sequence[tuple[int, int]], own: Array, keyframes: Mapping[int, Array], units: Mapping[int, float]) -> Array:
        """[N, 4, 4] camera to world of frames (stamp, keyframe) at `own` [N, 4, 4] to their keyframes, map units.

        `keyframes`: camera to world (4x4) by index; `units`: how many map units each one's own unit is.
        """
        known = [
            (keyframe, which, leg)
            for keyframe, legs in self._legs.items()
            for which, leg in enumerate(legs)
            if leg.to is not None and keyframe in keyframes and leg.to in keyframes
        ]
        row = {
            n: at for at, n in enumerate(sorted({n for _, n in frames} | {n for k, _, leg in known for n in (k, leg.to) if n is not None}))
        }
        poses = np.stack([keyframes[n] for n in row])
        of = np.array([row[n] for _, n in frames])
        if not known:
            return np.asarray(poses[of] @ own)
        first, last = np.array([(row[k], row[leg.to]) for k, _, leg in known if leg.to is not None]).T
        ways = np.stack([leg.own for _, _, leg in known if leg.own is not None])
        unit = np.array([units.get(k, 1.0) for k, _, _ in known])
        ways[:, :3, 3] *= unit[:, None]
        variance = np.array([leg.variance for _, _, leg in known]) * np.stack([np.ones_like(unit), unit**2], -1)
        own_weight = np.ones(len(row))
        now = max(self._legs, key=lambda n: self._legs[n][-1].begin)
        if now in row:
            own_weight[row[now]] = HELD  # the camera's pose as it was told goes by this one
        poses = _drawn_together(poses, first, last, ways, variance, own_weight)
        off = _steps(poses[first] @ ways, poses[last])
        found = poses[of] @ own
        at, leg_of, share = self._shares(frames, {(k, which): n for n, (k, which, _) in enumerate(known)})
        found[at] = found[at] @ _moves(share[:, None] * off[leg_of])
        return np.asarray(found)

    def _shares(
        self, frames: Sequence[tuple[int, int]], position: Mapping[tuple[int, int], int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """Of the frames on a leg: which they are, the position of their leg, and how much of its time has gone, 0..1."""
        on = []
        for n, (stamp, keyframe) in enumerate(frames):
            legs = self._legs.get(keyframe, [])
            which = bisect.bisect_right(legs, stamp, key=lambda leg: leg.begin) - 1
            if which >= 0 and (keyframe, which) in position:
                leg = legs[which]
                on.append((n, position[keyframe, which], min(1.0, (stamp - leg.begin) / (leg.end - leg.begin))))
        at, leg_of, share = np.array(on).reshape(-1, 3).T
        return at.astype(np.int64), leg_of.astype(np.int64), share


def _drawn_together(
    poses: Array, first: NDArray[np.int64], last: NDArray[np.int64], ways: Array, variance: Array, own_weight: Array
) -> Array:
    """Keyframes [K, 4, 4] where both their places in the map and the ways between them [L, 4, 4] are respected: linear least squares.

    `own_weight` [K]: of their places in the map. `variance` [L, 2] of the ways: rotation, place. That of the keyframes is what it leaves
    unexplained of how far the two differ. Ways are as long as the map says on the whole: what is followed in small pictures comes out
    short, all ways alike.
    """
    found, ways = poses.copy(), ways.copy()
    ways[:, :3, 3] *= _longer(poses[first], poses[last], ways)
    rows = np.tile(np.arange(len(first)), 2)
    signs = np.repeat([1.0, -1.0], len(first))
    between = csr_matrix((signs, (rows, np.concatenate([last, first]))), (len(first), len(poses)))
    off = Rotation.from_matrix((poses[first] @ ways)[:, :3, :3] @ poses[last, :3, :3].transpose(0, 2, 1)).as_rotvec()
    found[:, :3, :3] = Rotation.from_rotvec(_settled(between, off, variance[:, 0], own_weight)).as_matrix() @ poses[:, :3, :3]
    off = (found[first] @ ways - poses[last])[:, :3, 3]
    found[:, :3, 3] += _settled(between, off, variance[:, 1], own_weight)
    return found


def _settled(between: csr_matrix, off: Array, variance: Array, own_weight: Array) -> Array:
    """[K, 3] by which keyframes move for their ways, which are [L, 3] off and have these variances [L]."""
    of_keyframes = 0.5 * max(float(np.median((off**2).sum(1)) - np.median(variance)), 0.0)
    seen = np.minimum(of_keyframes / np.maximum(variance, 1e-12), AT_MOST)
    weight = (len(off) * seen + USUAL_LEGS * USUAL) / (len(off) + USUAL_LEGS)
    weighted = between.T @ diags(weight)
    return np.asarray(splu((diags(own_weight) + weighted @ between).tocsc()).solve(weighted @ off))


def _longer(first: Array, last: Array, ways: Array) -> float:
    """How much longer than the ways it is from keyframe to keyframe in the map: the median of all that go somewhere."""
    followed, mapped = np.linalg.norm(ways[:, :3, 3], axis=1), np.linalg.norm((last - first)[:, :3, 3], axis=1)
    far = (followed >= 0.5 * np.median(followed)) & (followed > 0)
    return float(np.median(mapped[far] / followed[far])) if far.any() else 1.0


def _steps(one: Array, other: Array) -> Array:
    """[N, 6] rotation vectors and translations, on the right of poses `one` [N, 4, 4], to `other`."""
    back = one[:, :3, :3].transpose(0, 2, 1)
    turns = Rotation.from_matrix(back @ other[:, :3, :3]).as_rotvec()
    return np.concatenate([turns, (back @ (other - one)[:, :3, 3:])[..., 0]], axis=1)


def _moves(steps: Array) -> Array:
    """[N, 4, 4] of [N, 6]."""
    moves = np.tile(np.eye(4), (len(steps), 1, 1))
    moves[:, :3, :3], moves[:, :3, 3] = Rotation.from_rotvec(steps[:, :3]).as_matrix(), steps[:, 3:]
    return moves
