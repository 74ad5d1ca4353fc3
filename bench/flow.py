"""What the flow estimator reaches on real photographs: `python bench/flow.py ../shared/data`.

Trajectory error: RMSE of the keyframes' positions after a similarity alignment, as a share of the extent (the largest distance between two
true camera positions of the run). Depth: mean absolute relative error after scaling each keyframe's median, over the pixels of confidence 3
and more; coverage is their share of the pixels with a true depth.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.estimators import PairPrediction, Tokens
from dust3r_ros.estimators.flow import FlowEstimator
from dust3r_ros.estimators.flow.motion import motion_between
from dust3r_ros.geometry import Camera, Similarity, procrustes

MIN_PARALLAX = 0.0125  # of the width
MIN_OVERLAP = 0.5
CONFIDENT = 3.0
SWIN = 3


@dataclass
class Chain:
    """Keyframes with their poses and depths on one scale: each call's window is attached to what is there."""

    estimator: FlowEstimator
    window: int
    views: dict[int, Tokens] = field(default_factory=dict)
    poses: dict[int, NDArray[np.float64]] = field(default_factory=dict)  # camera to world
    depth: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    confidence: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)  # per directed pair
    processor: list[float] = field(default_factory=list)  # the same in processor time, all threads together

    def moved(self, image: NDArray[np.uint8], camera: Camera) -> bool:
        """Whether the frame is to be a keyframe."""
        if not self.views:
            return True
        last = self.views[max(self.views)]
        motion = motion_between(last, self.estimator.encode(image, camera))
        return motion.parallax >= MIN_PARALLAX * last.camera.width or motion.overlap < MIN_OVERLAP

    def add(self, index: int, image: NDArray[np.uint8], camera: Camera) -> None:
        started, used = time.perf_counter(), time.process_time()
        self.views[index] = self.estimator.encode(image, camera)
        for old in sorted(self.views)[: -self.window]:
            del self.views[old]
        keys = sorted(self.views)
        pairs = [pair for old in keys[-1 - SWIN : -1] for pair in ((old, index), (index, old))]
        found = self.estimator.estimate(self.views, pairs)
        spent, used = time.perf_counter() - started, time.process_time() - used
        if pairs:
            self.seconds.append(spent / len(pairs))
            self.processor.append(used / len(pairs))
        self._attach(keys, {(p.i, p.j): p for p in found})

    @property
    def speed(self) -> str:
        """Per directed pair, where a keyframe brings all its pairs: everything from the image to the predictions."""
        wall, used = (1000 * np.median(times[min(SWIN - 1, len(times) - 1) :]) for times in (self.seconds, self.processor))
        return f"{wall:.0f} ms a directed pair ({used:.0f} ms of processor time)"

    def _attach(self, keys: list[int], found: dict[tuple[int, int], PairPrediction]) -> None:
        if len(keys) == 1:
            self.poses[keys[0]] = np.eye(4)
            return
        pose, poses = np.eye(4), {keys[0]: np.eye(4)}
        depth, confidence = {}, {}
        for i, j in pairwise(keys):
            forth, back = found[i, j], found[j, i]
            depth[i], depth[j] = forth.points_i.numpy()[..., 2], back.points_i.numpy()[..., 2]
            confidence[i], confidence[j] = forth.confidence_i.numpy(), back.confidence_i.numpy()
            step = procrustes(_some(back.points_i), _some(forth.points_j), with_scale=False)
            pose = pose @ step.matrix
            poses[j] = pose
        shared = [key for key in keys if key in self.depth]
        to_map = self._to_map(shared, poses, depth, confidence) if shared else None
        for key in keys:
            moved = poses[key].copy()
            if to_map is not None:
                moved[:3, :3] = to_map.rotation @ moved[:3, :3]
                moved[:3, 3] = to_map.apply(moved[:3, 3][None])[0]
            self.poses[key] = moved
            self.depth[key] = depth[key] * (to_map.scale if to_map is not None else 1)
            self.confidence[key] = confidence[key]

    def _to_map(
        self,
        shared: list[int],
        poses: dict[int, NDArray[np.float64]],
        depth: dict[int, NDArray[np.float32]],
        confidence: dict[int, NDArray[np.float32]],
    ) -> Similarity:
        """From a call's world to the map: scale by the median ratio of depths, then a rigid motion weighted by 1 / depth^2.

        (Least squares in space would let the few far points decide, whose depths are the least sure.)
        """
        source, target, weight, ratio = [], [], [], []
        for key in shared:
            rays = _some(self.views[key].camera.rays())
            new, old = _some(depth[key][..., None]), _some(self.depth[key][..., None])
            source.append(_apply(poses[key], rays * new))
            target.append(_apply(self.poses[key], rays * old))
            sure = np.minimum(_some(confidence[key][..., None]), _some(self.confidence[key][..., None])) - 1
            weight.append((sure / old**2)[:, 0])
            ratio.append((old / new)[sure > 1])
        ratios = np.concatenate(ratio)
        scale = float(np.median(ratios)) if len(ratios) else 1.0
        rigid = procrustes(scale * np.concatenate(source), np.concatenate(target), np.concatenate(weight) + 1e-9, with_scale=False)
        return Similarity(scale, rigid.rotation, rigid.translation)


def _some(plane: object) -> NDArray[np.float64]:
    array = np.asarray(plane)
    return array[::6, ::6].reshape(-1, array.shape[-1]).astype(float)


def _apply(pose: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ pose[:3, :3].T + pose[:3, 3]


def trajectory_error(estimated: NDArray[np.float64], truth: NDArray[np.float64], extent: float) -> float:
    """Per cent of the extent; positions [N, 3]."""
    aligned = procrustes(estimated, truth).apply(estimated)
    return 100 * float(np.sqrt(np.mean(np.sum((aligned - truth) ** 2, axis=1)))) / extent


def extent_of(positions: NDArray[np.float64]) -> float:
    return float(np.max(np.linalg.norm(positions[:, None] - positions[None], axis=-1)))


def depth_error(depth: NDArray[np.float32], confidence: NDArray[np.float32], truth: NDArray[np.float32]) -> tuple[float, float, float]:
    """Mean and median absolute relative error of the confident pixels, and their share, after median scaling."""
    known = truth > 0
    use = known & (confidence >= CONFIDENT)
    if not use.any():
        return float("nan"), float("nan"), 0.0
    scaled = depth[use] * np.median(truth[use] / depth[use])
    relative = np.abs(scaled - truth[use]) / truth[use]
    return float(relative.mean()), float(np.median(relative)), np.count_nonzero(use) / np.count_nonzero(known)


def kitchen_frames(folder: Path) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.float64], NDArray[np.float32]]]:
    """Frame number, image, true position [3], true depth in metres by the colour camera's pixels at 320x240."""
    positions = {round(row[0] * 30): row[1:4] for row in np.loadtxt(folder / "groundtruth.tum")}
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    # Same centre, another focal length: a colour pixel's ray, seen by the depth camera (both images are half size).
    depth_x = ((x - 159.75) / 262.5 * 292.5 + 159.75).astype(np.float32)
    depth_y = ((y - 119.75) / 262.5 * 292.5 + 119.75).astype(np.float32)
    for path in sorted(folder.glob("*.jpg")):
        number = int(path.stem)
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        depth = cv2.imread(str(folder / f"{path.stem}.depth.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        yield number, image, positions[number], cv2.remap(depth, depth_x, depth_y, cv2.INTER_NEAREST, borderValue=0)


def kitchen(folder: Path, start: int, count: int, window: int) -> None:
    camera = Camera(640, 480, 525.0, 525.0, 320.0, 240.0)
    chain = Chain(FlowEstimator(), window)
    frames = list(kitchen_frames(folder))[start : start + count]
    for index, image, _, _ in frames:
        if chain.moved(image, camera):
            chain.add(index, image, camera)
    keys = sorted(chain.depth)
    truth = {index: (position, depth) for index, _, position, depth in frames}
    extent = extent_of(np.array([position for _, _, position, _ in frames]))
    error = trajectory_error(np.array([chain.poses[k][:3, 3] for k in keys]), np.array([truth[k][0] for k in keys]), extent)
    depth = np.array([depth_error(chain.depth[k], chain.confidence[k], truth[k][1]) for k in keys])
    mean, middle, coverage = np.nanmean(depth, axis=0)
    print(
        f"kitchen {start:3d}+{count:3d} window {window}: {len(keys)} keyframes, trajectory {error:.2f} % of {extent:.2f} m, depth AbsRel "
        f"{mean:.3f} (median {middle:.3f}) at {100 * coverage:.0f} %, {chain.speed}"
    )


def motorcycle() -> None:
    """The Middlebury pair that scikit-image ships; its pose is estimated, not given."""
    from skimage.data import stereo_motorcycle

    left, right, disparity = stereo_motorcycle()
    height, width = left.shape[:2]
    focal, cx, cy, dx = 994.978, 311.193, 254.877, 31.086
    estimator = FlowEstimator()
    views = {
        0: estimator.encode(left, Camera(width, height, focal, focal, cx, cy)),
        1: estimator.encode(right, Camera(width, height, focal, focal, cx + dx, cy)),
    }
    found = estimator.estimate(views, [(0, 1)])[0]
    # The first image's own pixels of the working image: depth is focal * baseline / (disparity + difference of the principal points).
    target = views[0].camera
    truth = np.where(np.isfinite(disparity), focal * 0.193001 / (disparity + dx), 0).astype(np.float32)
    ray_x, ray_y = target.rays()[..., 0] * focal + cx, target.rays()[..., 1] * focal + cy
    truth = cv2.remap(truth, ray_x.astype(np.float32), ray_y.astype(np.float32), cv2.INTER_NEAREST, borderValue=0)
    mean, middle, coverage = depth_error(found.points_i.numpy()[..., 2], found.confidence_i.numpy(), truth)
    print(f"motorcycle: depth AbsRel {mean:.4f} (median {middle:.4f}) at {100 * coverage:.0f} %")


def door(folder: Path, window: int) -> None:
    data = json.loads((folder / "cameras.json").read_text())
    camera = Camera(
        data["width"], data["height"], data["fx"], data["fy"], data["cx"], data["cy"], "plumb_bob", (data["k1"], 0.0, 0.0, 0.0, 0.0)
    )
    chain = Chain(FlowEstimator(), window)
    truth = []
    for index, entry in enumerate(data["frames"]):
        image = cv2.cvtColor(cv2.imread(str(folder / entry["file"])), cv2.COLOR_BGR2RGB)
        chain.add(index, image, camera)
        truth.append(np.array(entry["camera_to_world"])[:3, 3])
    positions = np.array([chain.poses[k][:3, 3] for k in sorted(chain.depth)])
    error = trajectory_error(positions, np.array(truth), extent_of(np.array(truth)))
    print(f"Lund door window {window}: {len(positions)} images, trajectory {error:.3f} %, {chain.speed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder with redkitchen_dev and lund_door; without it the motorcycle only")
    parser.add_argument("--window", type=int, default=8, help="keyframes in the window")
    parser.add_argument("--only", choices=("kitchen", "motorcycle", "door"), help="one of the three")
    arguments = parser.parse_args()
    if arguments.only in (None, "motorcycle"):
        motorcycle()
    if arguments.data is None:
        return
    if arguments.only in (None, "door"):
        door(arguments.data / "lund_door", arguments.window)
    if arguments.only in (None, "kitchen"):
        for start, count in ((0, 30), (30, 30), (60, 30), (0, 100)):
            kitchen(arguments.data / "redkitchen_dev", start, count, arguments.window)


if __name__ == "__main__":
    main()
