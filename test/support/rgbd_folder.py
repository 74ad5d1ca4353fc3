"""A folder of posed RGB-D in TUM's layout, of a wall whose geometry is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from dust3r_ros.io.trajectory import write_tum
from dust3r_ros.training.recipe import RgbdSection

WIDTH, HEIGHT, FOCAL, WALL = 160, 120, 130.0, 3.0
SETTINGS = RgbdSection(intrinsics=(FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2), every=1, overlap=(0.3, 0.98), held_out=0.25)


def rgbd_folder(folder: Path, count: int = 16) -> RgbdSection:
    """A camera that slides along a wall, 0.2 m a picture, looking at it; the wall's colour is its position."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    poses, lists = [], {"rgb": ["# seconds file"], "depth": []}
    for index in range(count):
        pose = np.eye(4)
        pose[0, 3] = 0.2 * index
        x = (u - (WIDTH - 1) / 2) / FOCAL * WALL + pose[0, 3]
        image = np.stack([127 + 100 * np.sin(3 * x), 127 + 100 * np.cos(2 * x), v], -1)
        depth = np.full((HEIGHT, WIDTH), round(5000 * WALL), np.uint16)
        depth[:10] = 0  # a sensor never knows all
        cv2.imwrite(str(folder / f"rgb/{index}.png"), image.astype(np.uint8))
        cv2.imwrite(str(folder / f"depth/{index}.png"), depth)
        lists["rgb"].append(f"{index / 10:.4f} rgb/{index}.png")
        lists["depth"].append(f"{index / 10 + 0.005:.4f} depth/{index}.png")
        poses.append((index * 10**8, pose))
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    write_tum(folder / "groundtruth.txt", poses)
    return replace(SETTINGS, folder=str(folder))
