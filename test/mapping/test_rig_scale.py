"""What the known distances of a rig say of the map's scale, and when they say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dust3r_ros.geometry import inverse_pose, pose_matrix
from dust3r_ros.mapping import Rig, RigError
from dust3r_ros.mapping.rigs.rig_scale import Sample, sample_of_motion, sample_of_place, together

METRES = 2.5  # a map unit
MOUNT = pose_matrix(Rotation.from_euler("y", 2.0).as_matrix(), (0.4, -0.1, 0.2))


def moved(yaw: float, way: tuple[float, float, float]) -> np.ndarray:
    return pose_matrix(Rotation.from_euler("y", yaw).as_matrix(), way)


def in_units(pose: np.ndarray, metres: float = METRES) -> np.ndarray:
    return pose_matrix(pose[:3, :3], pose[:3, 3] / metres)


def test_a_camera_placed_in_the_map_tells_the_scale_by_its_distance() -> None:
    found = sample_of_place(MOUNT, in_units(MOUNT), depth=1.0)
    assert found is not None
    assert found.ratio == pytest.approx(METRES)
    nearer = sample_of_place(MOUNT, in_units(MOUNT), depth=3.0)
    assert nearer is not None
    assert nearer.sigma == pytest.approx(3 * found.sigma)  # far away things tell less


@pytest.mark.parametrize(
    "placed",
    [
        moved(0.3, (0.16, -0.04, 0.08)),  # looks another way
        pose_matrix(MOUNT[:3, :3], (-0.16, 0.04, -0.08)),  # on the other side
        pose_matrix(MOUNT[:3, :3], (0.16, 0.2, 0.08)),  # beside
    ],
)
def test_one_placed_where_the_extrinsics_do_not_have_it_tells_nothing(placed: np.ndarray) -> None:
    assert sample_of_place(MOUNT, placed, depth=1.0) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_rig_that_turns_tells_the_scale_by_the_ways_of_cameras_that_never_see_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    leader = pose_matrix(Rotation.from_rotvec(rng.normal(0, 0.2, 3)).as_matrix(), rng.normal(0, 0.3, 3))
    camera = inverse_pose(MOUNT) @ leader @ MOUNT
    found = sample_of_motion(MOUNT, in_units(leader), in_units(camera, rng.uniform(0.1, 10.0)))
    assert found is None or found.ratio == pytest.approx(METRES, rel=1e-6)
    assert found is not None or seed != 0


def test_one_that_goes_straight_or_contradicts_itself_tells_nothing() -> None:
    straight = moved(0.0, (0.1, 0.0, 0.5))
    assert sample_of_motion(MOUNT, in_units(straight), in_units(inverse_pose(MOUNT) @ straight @ MOUNT)) is None
    turned = moved(0.3, (0.1, 0.0, 0.5))
    assert sample_of_motion(MOUNT, in_units(turned), in_units(moved(0.1, (0.1, 0.0, 0.5)))) is None
    still = np.eye(4)
    assert sample_of_motion(MOUNT, still, still) is None


def test_samples_of_one_moment_count_by_how_sure_they_are() -> None:
    assert together([]) is None
    found = together([Sample(2.0, 0.01), Sample(3.0, 1.0)])
    assert found is not None
    assert found.ratio == pytest.approx(2.0, rel=0.01)
    assert found.sigma < 0.01


def test_a_rig_names_what_is_wrong_with_its_extrinsics() -> None:
    rig = Rig({"front": np.eye(4), "left": MOUNT})
    np.testing.assert_allclose(rig.between("left", "front") @ rig.between("front", "left"), np.eye(4), atol=1e-12)
    for pose, what in ((np.eye(3), "no pose"), (np.full((4, 4), np.nan), "no pose"), (2 * np.eye(4), "the rotation")):
        with pytest.raises(RigError, match=f"camera right: .*{what}"):
            rig.with_camera("right", pose)
    with pytest.raises(RigError, match="camera top has no place on the rig: known are front, left"):
        rig.pose("top")
