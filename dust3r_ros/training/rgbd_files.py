"""The lists of a sequence in TUM's layout: pictures with the depth and the pose nearest in time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.io.trajectory import read_tum
from dust3r_ros.training.errors import TrainingError
from dust3r_ros.training.recipe import RgbdSection

log = logging.getLogger(__name__)

LISTS = ("rgb.txt", "depth.txt", "groundtruth.txt")


@dataclass(frozen=True, eq=False)
class Picture:
    image: Path
    depth: Path
    pose: NDArray[np.float64]  # [4, 4] camera to world, metres


def sequences_of(folder: str) -> list[Path]:
    """The folder itself, or those in it that have the three lists. Raises TrainingError if there is none."""
    if not folder:
        raise TrainingError("data.rgbd.folder is empty: give a folder with rgb.txt, depth.txt and groundtruth.txt")
    path = Path(folder).expanduser()
    found = [inner for inner in (path, *sorted(path.glob("*/"))) if all((inner / name).is_file() for name in LISTS)]
    if not found:
        raise TrainingError(f"data.rgbd.folder {path}: neither it nor a folder in it has {', '.join(LISTS)}")
    return found


def read_sequence(folder: Path, settings: RgbdSection) -> list[Picture]:
    """Every n-th picture that has a depth and a pose close in time and files that exist; how many were dropped is said.

    Raises TrainingError for lists that cannot be read.
    """
    images, depths = (_listed(folder / name) for name in LISTS[:2])
    trajectory = read_tum(folder / LISTS[2])
    stamps, poses = np.asarray([stamp for stamp, _ in trajectory]) * 1e-9, [pose for _, pose in trajectory]
    depth_stamps = np.array([stamp for stamp, _ in depths])
    found, dropped = [], {"without depth in time": 0, "without a pose in time": 0, "without their files": 0}
    for stamp, name in images[:: settings.every]:
        at_depth, at_pose = _nearest(depth_stamps, stamp), _nearest(stamps, stamp)
        if abs(depth_stamps[at_depth] - stamp) > settings.max_time_difference:
            dropped["without depth in time"] += 1
        elif abs(stamps[at_pose] - stamp) > settings.max_time_difference:
            dropped["without a pose in time"] += 1
        elif not (folder / name).is_file() or not (folder / depths[at_depth][1]).is_file():
            dropped["without their files"] += 1
        else:
            found.append(Picture(folder / name, folder / depths[at_depth][1], poses[at_pose]))
    for reason, count in dropped.items():
        if count:
            log.warning("%s: %d of %d pictures dropped, %s", folder, count, len(images[:: settings.every]), reason)
    return found


def split_of(pictures: list[Picture], held_out: float, split: str) -> list[Picture]:
    """The end of the sequence is held out: neighbours in time look alike, so a share drawn at random would have been seen."""
    first_held_out = len(pictures) - round(held_out * len(pictures))
    return pictures[:first_held_out] if split == "train" else pictures[first_held_out:]


def _listed(path: Path) -> list[tuple[float, str]]:
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
        found = sorted((float(row[0]), row[1]) for row in rows)
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise TrainingError(f"{path} is no list of 'seconds file' ({error}): give TUM's layout") from error
    if not found:
        raise TrainingError(f"{path} lists nothing: give TUM's layout, lines of 'seconds file'")
    return found


def _nearest(stamps: NDArray[np.float64], stamp: float) -> int:
    return int(np.abs(stamps - stamp).argmin())
