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
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

FOLLOWED = 2.0  # weight of a way that was followed, where that of a keyframe's place in the map is 1

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Leg:
    """From one keyframe on."""

    begin: int  # ns: since then frames are followed from it
    end: int = 0  # ns, when `to` was taken
    to: int | None = None  # the next keyframe; None: there is none yet
    own: Array | None = None  # [4, 4] that frame's camera to the first keyframe's as it was followed, in the first one's unit


class FrameLegs:
    """By keyframe, as often as frames were followed from it."""

    def __init__(self) -> None:
        self._legs: dict[int, list[Leg]] = {}

    def clear(self) -> None:
        self._legs.clear()

    def begin(self, keyframe: int, stamp: int) -> None:
        """From `stamp` (ns) on frames are followed from this keyframe."""
        self._legs.setdefault(keyframe, []).append(Leg(stamp))

    def end(self, keyframe: int, stamp: int, to: int, own: Array) -> None:
        """The frame of `stamp`, at `own` (4x4, to this keyframe, in its unit), has become keyframe `to`."""
        legs = self._legs.get(keyframe)
        if legs and legs[-1].to is None and stamp > legs[-1].begin:
            legs[-1] = replace(legs[-1], end=stamp, to=to, own=own)

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
        ways[:, :3, 3] *= np.array([units.get(k, 1.0) for k, _, _ in known])[:, None]
        poses = _drawn_together(poses, first, last, ways)
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


def _drawn_together(poses: Array, first: NDArray[np.int64], last: NDArray[np.int64], ways: Array) -> Array:
    """Keyframes [K, 4, 4] where both their places in the map and the ways between them [L, 4, 4] are respected: linear least squares."""
    found = poses.copy()
    size, count = len(poses), len(first)
    rows = np.tile(np.arange(count), 2)
    between = csr_matrix((np.repeat([1.0, -1.0], count), (rows, np.concatenate([last, first]))), (count, size))
    normal = splu((identity(size) + FOLLOWED * between.T @ between).tocsc())
    off = Rotation.from_matrix((poses[first] @ ways)[:, :3, :3] @ poses[last, :3, :3].transpose(0, 2, 1)).as_rotvec()
    turns = normal.solve(FOLLOWED * (between.T @ off))
    found[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix() @ poses[:, :3, :3]
    off = (found[first] @ ways - poses[last])[:, :3, 3]
    found[:, :3, 3] += normal.solve(FOLLOWED * (between.T @ off))
    return found


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
