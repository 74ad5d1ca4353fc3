"""How much of a picture its keyframe has not seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import Camera
from dust3r_ros.geometry.rotations import pose_matrix
from dust3r_ros.mapping.tracking.coverage import Coverage
from dust3r_ros.mapping.types import Keyframe

CAMERA = Camera(160, 120, 160.0, 160.0, 79.5, 59.5)  # a wall at 2 m: 2 m wide in the picture
LARGE = CAMERA.resized(640, 480)


def keyframe(known: np.ndarray | None = None) -> Keyframe:
    depth = np.full((120, 160), 2.0, np.float32)
    confidence = np.full((120, 160), 5.0, np.float32)
    if known is not None:
        confidence[~known] = 1.0
    return Keyframe(0, 0, np.eye(4), CAMERA, CAMERA, np.zeros((120, 160, 3), np.uint8), depth, confidence)


@pytest.mark.parametrize(("sideways", "share"), [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (3.0, 1.0)])
def test_a_camera_that_goes_sideways_sees_as_much_new_as_it_went(sideways: float, share: float) -> None:
    assert Coverage(keyframe()).new_share(LARGE, pose_matrix(np.eye(3), (sideways, 0, 0))) == pytest.approx(share, abs=0.04)


def test_nearer_is_nothing_new_and_farther_is() -> None:
    covers = Coverage(keyframe())
    assert covers.new_share(LARGE, pose_matrix(np.eye(3), (0, 0, 1.4))) == 0.0
    assert covers.new_share(LARGE, pose_matrix(np.eye(3), (0, 0, -2.0))) == pytest.approx(0.75, abs=0.06)


def test_behind_is_all_new() -> None:
    turned = pose_matrix(Rotation.from_euler("y", 180, degrees=True).as_matrix(), (0, 0, 0))
    assert Coverage(keyframe()).new_share(LARGE, turned) == 1.0


def test_what_the_keyframe_knows_nothing_of_is_not_new_for_that() -> None:
    known = np.zeros((120, 160), bool)
    known[:, 40:120] = True
    covers = Coverage(keyframe(known))
    assert covers.new_share(LARGE, np.eye(4)) < 0.02
    assert covers.new_share(LARGE, pose_matrix(np.eye(3), (0.5, 0, 0))) < 0.08  # all that it knows is still seen
    assert covers.new_share(LARGE, pose_matrix(np.eye(3), (1.0, 0, 0))) == pytest.approx(0.5, abs=0.08)
    nothing = Coverage(keyframe(np.zeros((120, 160), bool)))
    assert nothing.new_share(LARGE, np.eye(4)) == 0.0
