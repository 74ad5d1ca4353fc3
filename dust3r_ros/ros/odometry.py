"""~/odometry: where the camera's base went, and how far that can be believed."""

from __future__ import annotations

import math

import numpy as np
from nav_msgs.msg import Odometry
from numpy.typing import NDArray

from dust3r_ros.geometry.rotations import inverse_pose, rotation_angle
from dust3r_ros.ros.conversion import pose_message, to_header

Matrix = NDArray[np.float64]

# One standard deviation. Rough, and meant to be: what may happen unseen while lost, and drift where others own the odometry.
LEAST = 0.0005  # map units and rad, where the covariance is known: none is certain
FLOOR, TURN_FLOOR = 0.005, 0.002  # map units, rad: even at rest
DRIFT, TURN_DRIFT = 0.03, 0.03  # of the way gone, of the angle turned
UNSEEN_SPEED, UNSEEN_TURN = 0.5, 0.5  # map units/s, rad/s: added while lost, beyond the speed before
UNKNOWN = 1e6  # variance of what nobody measured


class OdometryModel:
    """Builds the messages; to the covariance of the tracked frames comes what may have happened while the camera was lost."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._last: Matrix | None = None
        self._stamp: int | None = None
        self._way = self._turn = 0.0
        self._speed = 0.0
        self._unseen = 0.0  # seconds of all the times it was lost and went on without knowing how far it had moved
        self._unseen_way = 0.0

    def message(
        self,
        stamp: int,
        odom_frame: str,
        child: str,
        odom_child: Matrix,
        tracked: bool,
        inliers: float,
        found_again: bool = False,
        covariance: Matrix | None = None,
    ) -> Odometry:
        """`odom_child` (4x4) as of this stamp if `tracked`, else the last that was known.

        `covariance` [6, 6]: position and rotation along odom's axes, where the odometry is the Mapper's own; else a share of the way.

        `found_again`: placed anew in the map. The odometry goes on where it was lost, so what it missed stays missed.
        """
        lost = 0.0
        if found_again and self._stamp is not None:
            gap = max(0.0, (stamp - self._stamp) * 1e-9)
            self._unseen, self._unseen_way = self._unseen + gap, self._unseen_way + gap * (UNSEEN_SPEED + self._speed)
        if tracked:
            self._advance(stamp, odom_child)
        elif self._stamp is not None:
            lost = max(0.0, (stamp - self._stamp) * 1e-9)
        doubt = 1.0 / max(inliers, 0.1) if tracked else 1.0
        known = covariance is not None
        position = LEAST if known else FLOOR * doubt + DRIFT * self._way
        angle = LEAST if known else TURN_FLOOR * doubt + TURN_DRIFT * self._turn
        position += self._unseen_way + lost * (UNSEEN_SPEED + self._speed)
        angle += (self._unseen + lost) * UNSEEN_TURN
        message = Odometry(header=to_header(stamp, odom_frame), child_frame_id=child)
        message.pose.pose = pose_message(odom_child)
        total = _diagonal(position**2, min(angle, math.pi) ** 2)
        message.pose.covariance = total if covariance is None else total + covariance.ravel()
        message.twist.covariance = _diagonal(UNKNOWN, UNKNOWN)
        return message

    def _advance(self, stamp: int, pose: Matrix) -> None:
        if self._last is not None and self._stamp is not None:
            moved = inverse_pose(self._last) @ pose
            way = float(np.linalg.norm(moved[:3, 3]))
            self._way += way
            self._turn += rotation_angle(moved[:3, :3])
            self._speed = way / max((stamp - self._stamp) * 1e-9, 1e-3)
        self._last, self._stamp = pose, stamp


def _diagonal(position: float, angle: float) -> NDArray[np.float64]:
    return np.diag([position] * 3 + [angle] * 3).ravel()
