"""From the Mapper's world (the first camera's optical axes) to ROS's frames: map -> odom -> base (REP 105), z up (REP 103).

`odom -> base` only ever moves as the camera moved; every correction, and every start anew, goes into `map -> odom`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry.rotations import inverse_pose
from dust3r_ros.mapping.types import MapUpdate
from dust3r_ros.ros.errors import TransformError
from dust3r_ros.ros.parameters import NodeConfig
from dust3r_ros.ros.transforms import TransformBuffer

Matrix = NDArray[np.float64]

# Optical axes (x right, y down, z forward) seen from a body's (x forward, y left, z up).
OPTICAL_IN_BODY = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


@dataclass(frozen=True, eq=False)
class Placed:
    """Where the base (or the camera) is."""

    child: str  # base frame, or the camera's
    map_odom: Matrix | None  # [4, 4] odom's pose in the map: while the camera is lost as it was last known; None: never known
    odom_child: Matrix | None  # [4, 4] the child's pose in odom
    lost: bool = False  # where the child is is not known now


class Placement:
    """Knows the frames. Used by one thread at a time, but for the buffer."""

    def __init__(self, config: NodeConfig, buffer: TransformBuffer) -> None:
        self.config, self.buffer = config, buffer
        self.map_from_world: Matrix | None = None if config.base_frame else OPTICAL_IN_BODY  # None: the base's transform is not known yet
        self.child_from_camera = np.eye(4)
        self.child = ""
        self._odom_from_mapper = np.eye(4)
        self._last_odometry: Matrix | None = None
        self._map_odom: Matrix | None = None
        self._restarted = False

    def restarted(self, same_map_frame: bool = False) -> None:
        """The Mapper began anew, or went on from a saved map (`same_map_frame`): its odometry starts from nothing."""
        self._restarted = True
        self._map_odom = None
        if self.config.base_frame and not same_map_frame:
            self.map_from_world = None

    def locate_camera(self, camera_frame: str, stamp: int) -> None:
        """Find the camera on the base. Raises TransformError, which names what is missing, and knows nothing then."""
        if not self.config.base_frame:
            self.child, self.child_from_camera, start = camera_frame, np.eye(4), OPTICAL_IN_BODY
        else:
            self.child_from_camera = start = self.buffer.lookup(self.config.base_frame, camera_frame, stamp)
            self.child = self.config.base_frame
        if self.map_from_world is None:
            self.map_from_world = start

    def second_parent(self) -> str | None:
        """Who is the child's parent already, if somebody else says so: a frame has only one."""
        parent = self.buffer.parent(self.child)
        return parent if parent not in (None, self.config.odom_frame) and self.config.publish_odom_tf else None

    def child_pose(self, camera_pose: Matrix) -> Matrix:
        """[4, 4] camera to world -> child to map."""
        assert self.map_from_world is not None
        return self.map_from_world @ camera_pose @ inverse_pose(self.child_from_camera)

    def odometry_covariance(self, update: MapUpdate, odom_child: Matrix) -> Matrix | None:
        """[6, 6] of the child's position and rotation along odom's axes; None if odom -> base is somebody else's or nothing is known."""
        if update.odometry_covariance is None or not self.config.publish_odom_tf or self.map_from_world is None:
            return None
        axes = self.map_from_world[:3, :3] @ self._odom_from_mapper[:3, :3]
        camera = odom_child @ self.child_from_camera
        arm = odom_child[:3, 3] - camera[:3, 3]  # the child is moved by the camera's turns too
        into = np.zeros((6, 6))
        into[:3, :3] = into[3:, 3:] = axes
        into[:3, 3:] = np.cross(np.eye(3), arm).T @ axes
        return np.asarray(into @ update.odometry_covariance @ into.T)

    def place(self, update: MapUpdate) -> Placed:
        """Where this frame says the child is. Raises TransformError if odom -> base is somebody else's and not there."""
        assert self.map_from_world is not None
        if update.odometry is None:
            return Placed(self.child, None, None)
        if self._restarted:
            if self._last_odometry is not None:
                self._odom_from_mapper = self._last_odometry @ inverse_pose(update.odometry)
            self._restarted = False
        self._last_odometry = self._odom_from_mapper @ update.odometry
        if self.config.publish_odom_tf:
            odom_child = self.child_pose(self._last_odometry)
        else:
            odom_child = self.buffer.lookup(self.config.odom_frame, self.child, update.frame.stamp)
        if update.pose is not None:
            self._map_odom = self.child_pose(update.pose) @ inverse_pose(odom_child)
        return Placed(self.child, self._map_odom, odom_child, lost=update.pose is None)


__all__ = ["OPTICAL_IN_BODY", "Placed", "Placement", "TransformError"]
