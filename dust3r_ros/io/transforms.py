"""The part of a TF buffer that the node and bags need: who is whose parent, and where. tf2_ros is not on PyPI.

Poses are 4x4, child to parent. Safe to use from several threads.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry.rotations import inverse_pose, pose_matrix

Matrix = NDArray[np.float64]
HISTORY = 2000  # poses kept of each moving frame
MAX_DEPTH = 200  # of the tree; more is a loop


class TransformError(Dust3rError):
    """A transform that is not there."""


class TransformBuffer:
    """Static and moving transforms, looked up through the tree."""

    def __init__(self) -> None:
        self._static: dict[str, tuple[str, Matrix]] = {}
        self._moving: dict[str, tuple[str, deque[tuple[int, Matrix]]]] = {}
        self._lock = threading.Lock()

    def set_static(self, parent: str, child: str, pose: Matrix) -> None:
        with self._lock:
            self._static[child] = (parent, pose)

    def set_moving(self, parent: str, child: str, stamp: int, pose: Matrix) -> None:
        with self._lock:
            known = self._moving.get(child)
            if known is None or known[0] != parent or (known[1] and stamp < known[1][-1][0]):
                known = self._moving[child] = (parent, deque(maxlen=HISTORY))
            known[1].append((stamp, pose))

    def parent(self, child: str) -> str | None:
        with self._lock:
            found = self._static.get(child) or self._moving.get(child)
            return found[0] if found else None

    def lookup(self, target: str, source: str, stamp: int | None = None) -> Matrix:
        """[4, 4] points of `source` into `target`, at a time (ns) or as newly as known. TransformError names what is missing."""
        with self._lock:
            up_from_source = self._to_root(source, stamp)
            up_from_target = self._to_root(target, stamp)
        for frame, pose in up_from_source.items():
            if frame in up_from_target:
                return inverse_pose(up_from_target[frame]) @ pose
        raise TransformError(
            f"no transform from '{target}' to '{source}' on /tf_static: publish it (robot_state_publisher or static_transform_publisher)"
        )

    def _to_root(self, frame: str, stamp: int | None) -> dict[str, Matrix]:
        """Pose of `frame` in each of its ancestors, nearest first, itself included."""
        found, pose = {frame: np.eye(4)}, np.eye(4)
        for _ in range(MAX_DEPTH):
            if frame in self._static:
                frame, step = self._static[frame]
            elif frame in self._moving:
                child, (frame, history) = frame, self._moving[frame]
                step = _at(history, stamp, frame, child)
            else:
                return found
            pose = step @ pose
            found[frame] = pose
        raise TransformError(f"the transforms above '{frame}' form a loop: a frame has one parent")


def _at(history: deque[tuple[int, Matrix]], stamp: int | None, parent: str, child: str) -> Matrix:
    """The pose at a time, between two known ones by straight line and slerp."""
    if stamp is None or len(history) == 1:
        return history[-1][1]
    stamps = [time for time, _ in history]
    if not stamps[0] <= stamp <= stamps[-1]:
        away = (stamps[0] - stamp if stamp < stamps[0] else stamp - stamps[-1]) * 1e-9
        if away > 0.2:
            raise TransformError(f"'{parent}' -> '{child}' is {away:.2f} s away from the image's stamp on /tf: check the clocks")
        return history[0 if stamp < stamps[0] else -1][1]
    after = bisect_left(stamps, stamp)
    if stamps[after] == stamp:
        return history[after][1]
    (t0, before), (t1, later) = history[after - 1], history[after]
    share = (stamp - t0) / (t1 - t0)
    turned = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([before[:3, :3], later[:3, :3]])))(share).as_matrix()
    return pose_matrix(turned, (1 - share) * before[:3, 3] + share * later[:3, 3])
