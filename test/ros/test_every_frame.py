"""The estimator on every frame of a running node: corrections reach the transforms, the odometry does not jump, the map profits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from dust3r_ros_msgs.msg import Status
from support.pairs_of_frames import PairsOfFrames
from support.rig import CAMERA_FRAME
from tf2_msgs.msg import TFMessage

from dust3r_ros.mapping import Mapper
from dust3r_ros.ros.conversion import from_time, matrix_from_transform
from dust3r_ros.simulation import circle_sequence

SETTINGS = {
    "window.size": 4,
    "window.scene_graph": "swin-2",
    "keyframes.min_parallax": 0.03,
    "map.voxel_size": 0.02,
    "estimator.every_frame": "always",
}
FRAMES, NOISE = 28, 0.05


def test_every_frame_refines_the_map_and_its_own_place_while_the_odometry_is_smooth(rig) -> None:
    views = list(circle_sequence(180, 160, 120)[:FRAMES])
    running = rig(**SETTINGS)
    running.node.mapper = Mapper(running.node.mapper.config, PairsOfFrames(views, size=160, noise=NOISE, off=0.002), background=True)
    heard, told = running.listen(TFMessage, "/tf"), running.listen(Status, "~/status")
    running.show(views)

    def placed(child: str) -> dict[int, np.ndarray]:
        transforms = [t for message in heard for t in message.transforms if t.child_frame_id == child]
        return {from_time(t.header.stamp): matrix_from_transform(t.transform) for t in transforms}

    running.until(lambda: views[-1].stamp in placed(CAMERA_FRAME), "the last transform is heard")
    odometry, corrections = placed(CAMERA_FRAME), placed("odom")
    first = min(odometry)
    assert {view.stamp for view in views if view.stamp >= first} == set(odometry)
    steps = np.array([np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in pairwise(odometry.values())])
    assert steps.max() < 1.5 * np.median(steps)
    keyframes = {keyframe.stamp: keyframe for keyframe in running.node.mapper.keyframes}
    between = [stamp for stamp in corrections if stamp > sorted(keyframes)[1] and stamp not in keyframes]
    moved = [np.abs(corrections[b] - corrections[a]).max() > 1e-6 for a, b in pairwise(between)]
    assert sum(moved) > 0.8 * len(moved)  # pairs correct map -> odom, not keyframes alone
    running.until(lambda: told and "pair" in told[-1].stage_names, "the status tells how long pairs take")
    truth = {view.stamp: view.depth for view in views}
    refined = sorted(keyframes)[-2]
    depth, true = keyframes[refined].depth, truth[refined]
    ratio = np.log(depth[depth > 0] / true[depth > 0])
    assert (ratio - np.median(ratio)).std() < 0.4 * NOISE
