"""The whole Mapper on hand-held sequences of known truth, where they lie beside the project: every frame gets a pose, and a good one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evo.core.trajectory import PosePath3D
from scipy.spatial.distance import pdist

from dust3r_ros.estimators import create_estimator
from dust3r_ros.geometry import Camera
from dust3r_ros.io.images import read_picture
from dust3r_ros.io.trajectory import read_tum
from dust3r_ros.mapping import Frame, Mapper

DATA = Path(__file__).parents[3] / "shared" / "data"
KITCHEN, DOOR = DATA / "redkitchen_dev", DATA / "lund_door"


def error_percent(mapper: Mapper, truth: dict[int, np.ndarray]) -> float:
    """Root mean square position error after Sim(3), per cent of the largest distance between two true positions."""
    trajectory = mapper.trajectory()
    assert [stamp for stamp, _ in trajectory] == sorted(truth)
    estimated = PosePath3D(poses_se3=[pose for _, pose in trajectory])
    reference = PosePath3D(poses_se3=[truth[stamp] for stamp, _ in trajectory])
    estimated.align(reference, correct_scale=True)
    errors = np.linalg.norm(estimated.positions_xyz - reference.positions_xyz, axis=1)
    return float(100 * np.sqrt(np.mean(errors**2)) / pdist(reference.positions_xyz).max())


@pytest.mark.skipif(not KITCHEN.exists(), reason="the red kitchen does not lie beside the project")
@pytest.mark.parametrize(("start", "count", "bound"), [(0, 30, 4.0), (30, 30, 10.0), (60, 30, 4.0), (0, 100, 9.0)])
def test_the_red_kitchen(start: int, count: int, bound: float) -> None:
    poses = {round(stamp * 30e-9): pose for stamp, pose in read_tum(KITCHEN / "groundtruth.tum")}
    mapper, truth = Mapper(estimator=create_estimator("flow")), {}
    for file in sorted(KITCHEN.glob("*.jpg"))[start : start + count]:
        stamp = round(int(file.stem) / 30 * 1e9)
        truth[stamp] = poses[int(file.stem)]
        mapper.add(Frame(stamp, read_picture(file)[0], Camera(640, 480, 525.0, 525.0, 320.0, 240.0)))
    assert error_percent(mapper, truth) < bound


@pytest.mark.skipif(not DOOR.exists(), reason="the Lund door does not lie beside the project")
def test_the_lund_door() -> None:
    told = json.loads((DOOR / "cameras.json").read_text())
    camera = Camera(*(told[k] for k in ("width", "height", "fx", "fy", "cx", "cy")), "plumb_bob", (told["k1"], 0.0, 0.0, 0.0, 0.0))
    mapper, truth = Mapper(estimator=create_estimator("flow")), {}
    for k, frame in enumerate(told["frames"]):
        truth[k * 10**9] = np.array(frame["camera_to_world"])
        mapper.add(Frame(k * 10**9, read_picture(DOOR / frame["file"])[0], camera))
    assert error_percent(mapper, truth) < 0.5
