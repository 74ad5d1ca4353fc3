"""A node whose camera comes back to where it began: map -> odom corrects, odom -> camera stays smooth, latecomers get the corrected map."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from nav_msgs.msg import Path
from sensor_msgs.msg import PointCloud2
from support.rig import LATCHED
from support.simulated_estimator import SimulatedEstimator
from tf2_msgs.msg import TFMessage

from dust3r_ros.geometry import rotation_angle
from dust3r_ros.mapping import Mapper
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.ros.conversion import cloud_from_message, matrix_from_transform
from dust3r_ros.simulation import SimulatedView, circle_sequence

FRAMES, AGAIN, PERIOD = 110, 26, 100_000_000
BEND = 0.01  # radians that neighbouring keyframes turn too far
SETTINGS = {"window.size": 5, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}


def test_after_a_loop_the_map_corrects_and_the_odometry_does_not_jump(rig) -> None:
    once = list(circle_sequence(FRAMES, 160, 120))

    def later(view: SimulatedView, frames: int) -> SimulatedView:
        return replace(view, stamp=once[0].stamp + frames * PERIOD)

    running = rig(**SETTINGS)
    estimator = SimulatedEstimator(once, size=160, noise=0.01, bend=BEND)
    running.node.mapper = Mapper(with_settings(running.node.mapper.config, {}), estimator, background=True)
    heard = running.listen(TFMessage, "/tf")
    running.show([*once, *(later(view, FRAMES + n) for n, view in enumerate(once[:AGAIN]))])
    mapper = running.node.mapper
    loops = [edge for edge in mapper.edges if abs(edge[0] - edge[1]) > 5]
    assert loops
    sent = FRAMES + AGAIN
    while mapper.keyframe_map._aligner._running is not None and sent < 400:  # the result comes in with some image
        running.show([later(once[AGAIN - 1], sent)])
        sent += 1
    running.show([later(once[AGAIN - 1], sent)])

    def transforms(parent: str) -> list[tuple[int, np.ndarray]]:
        found = [t for message in heard for t in message.transforms if t.header.frame_id == parent]
        return [(t.header.stamp.sec * 10**9 + t.header.stamp.nanosec, matrix_from_transform(t.transform)) for t in found]

    running.until(lambda: transforms("map") and transforms("map")[-1][0] == once[0].stamp + sent * PERIOD, "the last transform is heard")
    odometry, correction = transforms("odom"), transforms("map")
    steps = [float(np.linalg.norm(b[:3, 3] - a[:3, 3])) for (_, a), (_, b) in pairwise(odometry)]
    turns = [rotation_angle(a[:3, :3].T @ b[:3, :3]) for (_, a), (_, b) in pairwise(correction)]
    assert max(steps) < 3 * np.median([step for step in steps if step > 1e-3])
    assert max(turns) > 0.02
    assert int(np.argmax(turns)) > len(turns) // 2  # it is the loop that corrects

    # The two keyframes that the loop joined stand to each other as they do in truth, not as the pairs between them added up.
    keyframes, true = {k.index: k for k in mapper.keyframes}, {view.stamp: view.pose for view in once}
    old, new = (keyframes[index] for index in loops[0])
    begin, end = (true[once[0].stamp + (k.stamp - once[0].stamp) % (FRAMES * PERIOD)][:3, :3] for k in (old, new))
    off = rotation_angle((old.pose[:3, :3].T @ new.pose[:3, :3]).T @ (begin.T @ end))
    assert off < 0.65 * BEND * (new.index - old.index)
    running.node.threads.front.hand_in()
    path = mapper.trajectory()

    clouds, paths = running.listen(PointCloud2, "~/map", LATCHED), running.listen(Path, "~/path", LATCHED)
    running.until(lambda: clouds and paths, "who comes late has heard")
    base = running.node.placement.map_from_world
    wanted = mapper.cloud().points @ base[:3, :3].T.astype(np.float32) + base[:3, 3].astype(np.float32)
    points = cloud_from_message(clouds[-1]).points
    assert len(points) == len(wanted)
    np.testing.assert_allclose(points[np.lexsort(points.T)], wanted[np.lexsort(wanted.T)], atol=1e-4)
    assert len(paths[-1].poses) == len(path)
