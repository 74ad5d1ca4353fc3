"""Several cameras on one body: who they are, where they sit, and what they saw at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import inverse_pose
from dust3r_ros.mapping.types import Frame

Pose = NDArray[np.float64]


class RigError(Dust3rError):
    """A rig, or a set of its frames, that cannot be used."""


class Rig:
    """Cameras by name, each with its pose on the body [4, 4]: camera (optical axes) to body, metres. Immutable.

    The body's own axes may be any; its origin is where the extrinsics are measured from. Raises RigError for what is no pose.
    """

    def __init__(self, cameras: Mapping[str, ArrayLike]) -> None:
        self._cameras: dict[str, Pose] = {}
        for name, given in cameras.items():
            pose = np.asarray(given, np.float64)
            if not name:
                raise RigError("a camera of the rig has no name: give each one, such as 'left'")
            if pose.shape != (4, 4) or not np.isfinite(pose).all():
                raise RigError(f"camera {name}: its extrinsics of shape {pose.shape} are no pose: give a finite 4x4 matrix, camera to body")
            turn = pose[:3, :3]
            if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
                raise RigError(f"camera {name}: the rotation of its extrinsics is none: give an orthonormal, right-handed 3x3 part")
            self._cameras[name] = pose

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._cameras)

    def __contains__(self, name: str) -> bool:
        return name in self._cameras

    def __len__(self) -> int:
        return len(self._cameras)

    def pose(self, name: str) -> Pose:
        """[4, 4] camera to body. RigError for a camera that the rig does not have."""
        if name not in self._cameras:
            raise RigError(f"camera {name} has no place on the rig: known are {', '.join(self._cameras) or 'none'}; give its extrinsics")
        return self._cameras[name]

    def between(self, name: str, other: str) -> Pose:
        """[4, 4] camera `name` to camera `other`, metres."""
        return inverse_pose(self.pose(other)) @ self.pose(name)

    def with_camera(self, name: str, pose: ArrayLike) -> Rig:
        """The rig with one camera more, or moved."""
        return Rig({**self._cameras, name: pose})


@dataclass(frozen=True, eq=False)
class FrameSet:
    """What the cameras saw at about the same time; one that stopped or was late is not among them."""

    stamp: int  # nanoseconds, of the set
    frames: Mapping[str, Frame]  # by camera
