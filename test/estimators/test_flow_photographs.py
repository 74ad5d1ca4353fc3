"""The flow estimator on real photographs with known truth: the pair that scikit-image ships, and sequences that lie beside the project."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dust3r_ros.estimators import PairPrediction
from dust3r_ros.estimators.flow import FlowEstimator
from dust3r_ros.geometry import Camera, procrustes

DATA = Path(__file__).parents[3] / "shared" / "data"
KITCHEN, DOOR = DATA / "redkitchen_dev", DATA / "lund_door"
KITCHEN_CAMERA = Camera(640, 480, 525.0, 525.0, 320.0, 240.0)


def read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def predict(images: list[np.ndarray], cameras: list[Camera]) -> dict[tuple[int, int], PairPrediction]:
    """Every keyframe with the three before it, in the order in which a camera would bring them."""
    estimator = FlowEstimator()
    views, found = {}, {}
    for k, (image, camera) in enumerate(zip(images, cameras, strict=True)):
        views[k] = estimator.encode(image, camera)
        pairs = [pair for old in range(max(0, k - 3), k) for pair in ((old, k), (k, old))]
        found.update({(p.i, p.j): p for p in estimator.estimate(views, pairs)})
    return found


def depth_error(pair: PairPrediction, truth: np.ndarray) -> tuple[float, float]:
    """Mean absolute relative error of view i where the confidence is 3 or more, and the share of such pixels, of those with truth."""
    depth, sure = pair.points_i.numpy()[..., 2], (truth > 0) & (pair.confidence_i.numpy() >= 3)
    scaled = depth[sure] * np.median(truth[sure] / depth[sure])
    return float(np.mean(np.abs(scaled / truth[sure] - 1))), np.count_nonzero(sure) / np.count_nonzero(truth > 0)


def centres(found: dict[tuple[int, int], PairPrediction], count: int) -> np.ndarray:
    """Camera positions [count, 3] in the first camera, chained over consecutive pairs of one window."""
    pose, positions = np.eye(4), [np.zeros(3)]
    for k in range(count - 1):
        own, seen = found[k + 1, k].points_i.numpy(), found[k, k + 1].points_j.numpy()
        pose = pose @ procrustes(own[::6, ::6].reshape(-1, 3), seen[::6, ::6].reshape(-1, 3), with_scale=False).matrix
        positions.append(pose[:3, 3])
    return np.array(positions)


def trajectory_error(estimated: np.ndarray, truth: np.ndarray) -> float:
    """RMSE after a similarity alignment, as a share of the largest distance between two true positions."""
    residual = np.linalg.norm(procrustes(estimated, truth).apply(estimated) - truth, axis=1)
    return float(np.sqrt(np.mean(residual**2)) / np.linalg.norm(truth[:, None] - truth[None], axis=-1).max())


def test_the_motorcycle_from_two_photographs_whose_pose_is_not_told() -> None:
    data = pytest.importorskip("skimage.data")
    left, right, disparity = data.stereo_motorcycle()
    height, width = left.shape[:2]
    focal, cx, cy, dx = 994.978, 311.193, 254.877, 31.086  # scikit-image's documentation of the pair
    cameras = [Camera(width, height, focal, focal, cx, cy), Camera(width, height, focal, focal, cx + dx, cy)]
    pair = predict([left, right], cameras)[0, 1]
    truth = np.where(np.isfinite(disparity), focal * 0.193001 / (disparity + dx), 0).astype(np.float32)
    size = pair.points_i.shape[1::-1]
    error, share = depth_error(pair, cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST))
    assert error < 0.04
    assert share > 0.8


@pytest.mark.skipif(not DOOR.exists(), reason="the Lund door photographs are not beside the project")
def test_eight_photographs_past_a_door() -> None:
    listed = json.loads((DOOR / "cameras.json").read_text())
    camera = Camera(*(listed[k] for k in ("width", "height", "fx", "fy", "cx", "cy")), "plumb_bob", (listed["k1"], 0.0, 0.0, 0.0, 0.0))
    frames = listed["frames"][:8]
    found = predict([read(DOOR / frame["file"]) for frame in frames], [camera] * len(frames))
    truth = np.array([frame["camera_to_world"] for frame in frames])[:, :3, 3]
    assert trajectory_error(centres(found, len(frames)), truth) < 0.002


@pytest.mark.skipif(not KITCHEN.exists(), reason="the red kitchen is not beside the project")
@pytest.mark.parametrize(("start", "most"), [(0, 0.04), (90, 0.10), (180, 0.04)])
def test_thirty_frames_of_a_kitchen(start: int, most: float) -> None:
    numbers = list(range(start, start + 90, 15))
    found = predict([read(KITCHEN / f"{number:06d}.jpg") for number in numbers], [KITCHEN_CAMERA] * len(numbers))
    positions = {round(row[0] * 30): row[1:4] for row in np.loadtxt(KITCHEN / "groundtruth.tum")}
    assert trajectory_error(centres(found, len(numbers)), np.array([positions[number] for number in numbers])) < most
    # Colour and depth camera have one centre and differ in focal length: a colour pixel's ray in the depth image of half the size.
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    along_x, along_y = (((v - c) / 262.5 * 292.5 + c).astype(np.float32) for v, c in ((x, 159.75), (y, 119.75)))
    errors, shares = [], []
    for k, number in enumerate(numbers[:-1]):
        depth = cv2.imread(str(KITCHEN / f"{number:06d}.depth.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        error, share = depth_error(found[k, k + 1], cv2.remap(depth, along_x, along_y, cv2.INTER_NEAREST))
        errors.append(error)
        shares.append(share)
    assert np.mean(errors) < 0.10
    assert np.mean(shares) > 0.6
