"""Pairs of 7-Scenes' red kitchen (Shotton et al., CVPR 2013): a hand-held RGB-D camera with metric poses, where it lies on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.demo.inputs import TrueView
from dust3r_ros.geometry import Camera
from dust3r_ros.io.images import read_picture
from dust3r_ros.io.trajectory import read_tum
from dust3r_ros.training.evaluation.truth import DataError, TruePair, overlap

KITCHEN_GAPS = (1, 20)  # frames at 10 Hz
KITCHEN_OVERLAP = 0.3  # of the first view's points: a pair shares at least that much
KITCHEN_COLOUR = Camera(640, 480, 525.0, 525.0, 320.0, 240.0)  # the data set's usual convention
KITCHEN_DEPTH = Camera(640, 480, 585.0, 585.0, 320.0, 240.0)


def kitchen_pairs(folder: Path, count: int, seed: int = 0) -> Iterator[TruePair]:
    """Pairs of the red kitchen (7-Scenes) that share 30 % of the first view's points or more.

    `folder`: NNNNNN.jpg, NNNNNN.depth.png (16 bits, millimetres, 0: none) and groundtruth.tum, whose stamps are the numbers at 30 Hz. Depth
    is moved onto the colour camera's pixels by the data set's two focal lengths, its baseline left out. Raises DataError.
    """
    frames = kitchen_frames(folder)
    rng = np.random.default_rng([seed, 2])
    tries = 0
    while count > 0:
        tries += 1
        if tries > 50 * (count + 1):
            raise DataError(f"red kitchen {folder}: too few of its {len(frames)} frames overlap: give the whole sequence")
        gap = int(rng.integers(KITCHEN_GAPS[0], KITCHEN_GAPS[1] + 1))
        if gap >= len(frames):
            continue
        start = int(rng.integers(len(frames) - gap))
        order = (start, start + gap) if rng.random() < 0.5 else (start + gap, start)
        first, second = (_kitchen_view(frames[k]) for k in order)
        if overlap(first, second) >= KITCHEN_OVERLAP:
            count, tries = count - 1, 0
            yield TruePair(first, second)


@dataclass(frozen=True, eq=False)
class KitchenFrame:
    """Files and pose of one frame."""

    stamp: int
    picture: Path
    depth: Path
    pose: NDArray[np.float64]


def kitchen_frames(folder: Path) -> list[KitchenFrame]:
    """All frames that have a picture, a depth image and a pose, by number. Raises DataError if there are under two."""
    truth = folder / "groundtruth.tum"
    if not truth.is_file():
        raise DataError(f"red kitchen {folder}: it has no groundtruth.tum; give the folder with NNNNNN.jpg, NNNNNN.depth.png and that file")
    found = []
    for stamp, pose in read_tum(truth):
        name = f"{round(stamp * 30e-9):06d}"
        files = folder / f"{name}.jpg", folder / f"{name}.depth.png"
        if all(file.is_file() for file in files):
            found.append(KitchenFrame(stamp, *files, pose))
    if len(found) < 2:
        raise DataError(f"red kitchen {folder}: {len(found)} frames have picture, depth and pose; two are needed")
    return found


def kitchen_views(folder: Path) -> list[TrueView]:
    """Every frame. Raises DataError."""
    return [_kitchen_view(frame) for frame in kitchen_frames(folder)]


def _kitchen_view(frame: KitchenFrame) -> TrueView:
    image, _ = read_picture(frame.picture)
    raw = cv2.imread(str(frame.depth), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.dtype != np.uint16:
        raise DataError(f"red kitchen: {frame.depth} is no 16-bit picture of depths in millimetres")
    height, width = image.shape[:2]
    camera = KITCHEN_COLOUR.resized(width, height)
    there = KITCHEN_DEPTH.resized(raw.shape[1], raw.shape[0])
    pixels = there.project(camera.unproject(camera.pixel_grid()))
    near = np.rint(pixels).astype(int).clip(0, (raw.shape[1] - 1, raw.shape[0] - 1))
    millimetres = np.where(there.contains(pixels), raw[near[..., 1], near[..., 0]], 0)
    return TrueView(frame.stamp, image, camera, frame.pose, millimetres.astype(np.float32) / np.float32(1000))
