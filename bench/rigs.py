"""What several cameras give: `python bench/rigs.py [--seeds 3]`.

5.0 m round the simulated room, 56 sets of 160x120, pointmaps with 2 % noise, each pair on a scale of its own and without confidence where
the views hardly overlap. Of every set's pose in the frame of the first: the error at the end and the largest; metres per map unit at the
end by the best similarity of all poses onto the truth, less 1, and the standard deviation that the Mapper says; milliseconds of a set.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "test"))
from support.rig_walk import APART, FRONT, TWO, RigEstimator, frame_set, looking, rig_views

from dust3r_ros.geometry import inverse_pose, procrustes
from dust3r_ros.mapping import MapperConfig, Rig, RigMapper, with_settings

COMMON = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}
FRAMES, BLIND = 56, range(22, 42)
RIGS = {
    "one camera": (FRONT, (), {}),
    "two, 0.25 m and 40 degrees apart": (TWO, (), {}),
    "the same, one blind for 2 s": (TWO, ("front",), {}),
    "three": ({**TWO, "right": looking(40.0, 0.25)}, (), {}),
    "two back to back": (APART, (), {"keyframes.min_overlap": 0.8}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'rig':35} {'at the end':>10} {'largest':>8} {'scale off':>9} {'said':>6} {'tracked set':>11} {'keyframe set':>12}")
    for name, (end, largest, scale, said, tracked, grown) in measured(options.seeds):
        metric = f"{100 * np.abs(scale).max():7.2f} % {100 * said.mean():4.1f} %" if np.isfinite(said).all() else f"{'-':>9} {'-':>6}"
        times = f"{np.median(tracked):8.1f} ms {np.median(grown):9.0f} ms"
        print(f"{name:35} {100 * end.max():7.1f} cm {100 * largest.max():5.1f} cm {metric} {times}", flush=True)


def measured(seeds: int) -> Iterator[tuple[str, np.ndarray]]:
    """Each rig, and what `run` says of it [6, seeds]."""
    for name, (cameras, blind, changes) in RIGS.items():
        yield name, np.array([run(cameras, blind, changes, seed) for seed in range(seeds)]).T


def run(cameras: dict[str, np.ndarray], blind: tuple[str, ...], changes: dict[str, object], seed: int) -> tuple[float, ...]:
    views = rig_views(cameras, FRAMES)
    config = with_settings(MapperConfig(), {**COMMON, **changes})
    mapper = RigMapper(Rig(cameras), config, RigEstimator(views, size=160, noise=0.02, seed=seed))
    spent: dict[bool, list[float]] = {False: [], True: []}
    for k in range(FRAMES):
        given = frame_set(views, k, blind if k in BLIND else ())
        start = time.perf_counter()
        update = mapper.add(given)
        spent[update.is_keyframe].append(1000 * (time.perf_counter() - start))
    truth = {view.stamp: view.pose for view in views["front"]}
    poses = mapper.trajectory()
    found = procrustes(np.stack([pose[:3, 3] for _, pose in poses]), np.stack([truth[stamp][:3, 3] for stamp, _ in poses]))
    size = 1.0 if mapper.scale.is_metric else found.scale  # one camera has no metres: as if somebody had told it
    first = truth[poses[0][0]]
    off = []
    for stamp, pose in poses:
        moved = inverse_pose(poses[0][1]) @ pose
        moved[:3, 3] *= size
        off.append(float(np.linalg.norm((inverse_pose(truth[stamp]) @ first @ moved)[:3, 3])))
    said = mapper.scale.uncertainty
    return off[-1], max(off), found.scale - 1.0, said, float(np.median(spent[False])), float(np.median(spent[True]))


if __name__ == "__main__":
    main()
