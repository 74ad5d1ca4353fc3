"""A node whose camera is covered and carried to where it has been before: what it says meanwhile, and what moves when it is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from dust3r_ros_msgs.msg import Status
from nav_msgs.msg import Odometry
from support.simulated_estimator import SimulatedEstimator
from tf2_msgs.msg import TFMessage

from dust3r_ros.mapping import Mapper, TrackingState
from dust3r_ros.mapping.config import with_settings
from dust3r_ros.ros.conversion import from_time, matrix_from_transform
from dust3r_ros.simulation import circle_sequence

MAPPED, DARK, PERIOD = 30, 12, 100_000_000
SETTINGS = {"window.size": 4, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}


def test_lost_it_says_so_and_holds_still_and_found_it_corrects_map_odom_alone(rig) -> None:
    sequence = circle_sequence(80, 120, 90)
    views = [sequence[k] for k in range(MAPPED)]
    running = rig(**SETTINGS)
    running.node.mapper = Mapper(with_settings(running.node.mapper.config, {}), SimulatedEstimator(views, size=120))
    running.show(views)
    transforms, odometry = running.listen(TFMessage, "/tf"), running.listen(Odometry, "~/odometry")
    told, diagnosed = running.listen(Status, "~/status"), running.listen(DiagnosticArray, "/diagnostics")

    def stamp(n: int) -> int:
        return views[0].stamp + n * PERIOD

    dark = np.zeros_like(views[0].image)
    running.show([replace(views[0], image=dark, stamp=stamp(MAPPED + n)) for n in range(DARK)])
    assert running.node.mapper.state is TrackingState.LOST
    running.until(lambda: any(s.state == Status.LOST and "lost for 1.2 s" in s.reason for s in told), "the status says for how long")
    running.until(lambda: any("lost for (s)" in {v.key for v in s.values} for m in diagnosed for s in m.status), "diagnostics say it")
    running.show([replace(view, stamp=stamp(MAPPED + DARK + n)) for n, view in enumerate(views[3:10])])
    assert running.node.mapper.state is TrackingState.TRACKING
    last = stamp(MAPPED + DARK + 6)
    running.until(lambda: odometry and from_time(odometry[-1].header.stamp) == last, "the last odometry is heard")

    def heard(parent: str) -> dict[int, np.ndarray]:
        found = [t for message in transforms for t in message.transforms if t.header.frame_id == parent]
        return {from_time(t.header.stamp): matrix_from_transform(t.transform) for t in found}

    running.until(lambda: last in heard("odom"), "the last transform is heard")
    held = [heard("map")[stamp(MAPPED + n)] for n in range(DARK)]
    for one in held[1:]:
        np.testing.assert_array_equal(one, held[0])
    assert not {stamp(MAPPED + n) for n in range(DARK)} & set(heard("odom"))  # nobody knows where it is
    doubt = {from_time(message.header.stamp): float(message.pose.covariance[0]) for message in odometry}
    lost = [doubt[stamp(MAPPED + n)] for n in range(DARK)]
    assert lost == sorted(lost)
    assert lost[-1] > 4 * lost[0]
    assert doubt[last] > lost[-1]  # what the odometry missed stays missed
    # Found: map -> odom takes the jump, odom -> camera goes on from where it was.
    place = {from_time(m.header.stamp): np.array([getattr(m.pose.pose.position, axis) for axis in "xyz"]) for m in odometry}
    assert max(np.linalg.norm(place[stamp(MAPPED + n + 1)] - place[stamp(MAPPED + n)]) for n in range(DARK + 6)) < 0.1
    assert np.linalg.norm(heard("map")[last][:3, 3] - held[-1][:3, 3]) > 0.1


def test_what_is_seen_while_lost_is_counted(rig) -> None:
    views = circle_sequence(60, 120, 90)[:34]
    running = rig(**SETTINGS)
    running.node.mapper = Mapper(with_settings(running.node.mapper.config, {}), SimulatedEstimator(views, size=120))
    told = running.listen(Status, "~/status")
    dark = np.zeros_like(views[0].image)
    walk = [*views[:14], *[replace(views[0], image=dark)] * 31, *views[26:]]
    running.show([replace(view, stamp=views[0].stamp + n * PERIOD) for n, view in enumerate(walk)])
    pieces = running.node.mapper.pieces
    assert len(pieces) == 1
    running.until(lambda: (1, pieces[0]) in {(one.map_pieces, one.piece_keyframes) for one in told}, "the status counts them")
