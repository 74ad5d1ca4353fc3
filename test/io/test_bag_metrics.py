"""A bag with wheels, a depth camera or a robot's transforms makes its map metric, as the node's topics do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.simulated_estimator import SimulatedEstimator
from support.walk import once_round, wheels

from dust3r_ros.geometry import pose_matrix, procrustes, quaternion_from_matrix
from dust3r_ros.geometry.rotations import inverse_pose
from dust3r_ros.io.bag_metrics import BagMetrics
from dust3r_ros.io.bags import BagError, BagFrames, BagWriter
from dust3r_ros.io.robot_config import RobotConfig
from dust3r_ros.io.settings_file import read_configs
from dust3r_ros.mapping import Mapper, MapperConfig, with_settings
from dust3r_ros.mapping.config import ConfigError
from dust3r_ros.simulation import SimulatedView

VIEWS = 32  # of the 56 once round: 2.9 m
BODY_CAMERA = pose_matrix(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), (0.3, 0.0, 0.4))
SETTINGS = {"window.size": 4, "window.scene_graph": "swin-2", "map.voxel_size": 0.05}

Write = Callable[["RobotBag", SimulatedView, NDArray[np.float64]], None]


class RobotBag(BagWriter):
    """Messages of a robot whose camera is 0.3 m ahead of its axle."""

    def _type(self, name: str) -> type:
        return self._types.types[name]

    def transform(self, topic: str, stamp: int, parent: str, child: str, pose: NDArray[np.float64]) -> None:
        x, y, z, w = quaternion_from_matrix(pose[:3, :3])
        moved = self._type("geometry_msgs/msg/Transform")(
            self._type("geometry_msgs/msg/Vector3")(*pose[:3, 3]), self._type("geometry_msgs/msg/Quaternion")(x, y, z, w)
        )
        item = self._type("geometry_msgs/msg/TransformStamped")(self._header(stamp, parent), child, moved)
        self.write(topic, stamp, "tf2_msgs/msg/TFMessage", transforms=[item])

    def odometry(self, topic: str, stamp: int, child: str, pose: NDArray[np.float64]) -> None:
        x, y, z, w = quaternion_from_matrix(pose[:3, :3])
        placed = self._type("geometry_msgs/msg/Pose")(
            self._type("geometry_msgs/msg/Point")(*pose[:3, 3]), self._type("geometry_msgs/msg/Quaternion")(x, y, z, w)
        )
        zero = self._type("geometry_msgs/msg/Vector3")(0.0, 0.0, 0.0)
        self.write(
            topic, stamp, "nav_msgs/msg/Odometry", header=self._header(stamp, "odom"), child_frame_id=child,
            pose=self._type("geometry_msgs/msg/PoseWithCovariance")(placed, np.zeros(36)),
            twist=self._type("geometry_msgs/msg/TwistWithCovariance")(self._type("geometry_msgs/msg/Twist")(zero, zero), np.zeros(36)),
        )  # fmt: skip

    def depth(self, topic: str, stamp: int, metres: NDArray[np.float32]) -> None:
        height, width = metres.shape
        self.write(
            topic, stamp, "sensor_msgs/msg/Image", header=self._header(stamp, "camera"), height=height, width=width, encoding="16UC1",
            is_bigendian=0, step=2 * width, data=np.frombuffer((1000 * metres).astype(np.uint16).tobytes(), np.uint8),
        )  # fmt: skip


def recorded(path: Path, write: Write) -> Path:
    views = once_round()[:VIEWS]
    with RobotBag(path) as bag:
        bag.transform("/tf_static", views[0].stamp, "base", "camera", BODY_CAMERA)
        for view, pose in zip(views, wheels(views, noise=0.02), strict=True):
            write(bag, view, pose @ inverse_pose(BODY_CAMERA))
            bag.camera_info("/camera/camera_info", view.stamp, view.camera)
            bag.image("/camera/image_raw", view.stamp, view.image)
    return path


def replayed(path: Path, **changes: object) -> Mapper:
    frames, robot = BagFrames(path, "/camera/image_raw"), with_settings(RobotConfig(), changes)
    mapper = Mapper(with_settings(MapperConfig(), SETTINGS), SimulatedEstimator(once_round(), size=80, noise=0.02))
    metrics = BagMetrics(frames, robot)
    for frame in frames:
        metrics.hand_over(mapper, frame.stamp)
        mapper.add(frame)
    return mapper


def size(mapper: Mapper) -> float:
    """How many metres a map unit is."""
    truth = {view.stamp: view.pose[:3, 3] for view in once_round()}
    found = mapper.trajectory()
    return procrustes(np.stack([pose[:3, 3] for _, pose in found]), np.stack([truth[stamp] for stamp, _ in found])).scale


def odometry(bag: RobotBag, view: SimulatedView, base: NDArray[np.float64]) -> None:
    bag.odometry("/wheels", view.stamp, "base", base)


def transforms(bag: RobotBag, view: SimulatedView, base: NDArray[np.float64]) -> None:
    bag.transform("/tf", view.stamp, "odom", "base", base)
    bag.transform("/tf", view.stamp, "base", "gripper", np.eye(4))


def depth(bag: RobotBag, view: SimulatedView, base: NDArray[np.float64]) -> None:  # noqa: ARG001
    bag.depth("/depth/image", view.stamp, view.depth)


@pytest.mark.parametrize(
    ("write", "changes", "source", "within"),
    [
        (odometry, {"scale.odom_topic": "/wheels"}, "odometry", 0.05),
        (transforms, {"publish_odom_tf": False}, "odometry", 0.05),
        (depth, {"scale.depth_topic": "/depth/image"}, "depth", 0.03),
    ],
)
def test_what_the_robot_measured_makes_the_map_metric(
    write: Write, changes: dict[str, object], source: str, within: float, tmp_path: Path
) -> None:
    mapper = replayed(recorded(tmp_path / "bag", write), **changes)
    assert mapper.scale.source == source
    assert size(mapper) == pytest.approx(1.0, abs=within)


def test_nothing_is_metric_that_nobody_asked_for(tmp_path: Path) -> None:
    """odom -> base on /tf may be what this package published when the bag was made: not metric."""
    mapper = replayed(recorded(tmp_path / "bag", transforms))
    assert not mapper.scale.is_metric


def test_readings_that_cannot_be_used_are_said_once_and_do_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def elsewhere(bag: RobotBag, view: SimulatedView, base: NDArray[np.float64]) -> None:
        bag.odometry("/wheels", view.stamp, "axle", base)  # which nobody says the place of
        bag.image("/depth/image", view.stamp, view.image)  # a picture

    with caplog.at_level(logging.WARNING):
        mapper = replayed(recorded(tmp_path / "bag", elsewhere), **{"scale.odom_topic": "/wheels", "scale.depth_topic": "/depth/image"})
    assert len(mapper.keyframes) > 3
    assert not mapper.scale.is_metric
    assert sum("'axle'" in line for line in caplog.messages) == 1
    assert sum("rgb8" in line for line in caplog.messages) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scale.odom_topic": "/wheel"}, r"'/wheel' of scale\.odom_topic is not in it; of that type it has /wheels"),
        ({"scale.odom_topic": "/camera/image_raw"}, "is sensor_msgs/msg/Image, not nav_msgs/msg/Odometry"),
        ({"publish_odom_tf": False}, r"has no /tf with 'odom' -> base: name a topic in scale\.odom_topic"),
    ],
)
def test_topics_that_are_not_there_are_named(changes: dict[str, object], says: str, tmp_path: Path) -> None:
    path = recorded(tmp_path / "bag", odometry)
    with pytest.raises(BagError, match=says):
        BagMetrics(BagFrames(path), with_settings(RobotConfig(), changes))


def test_the_nodes_file_says_it_all(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    base_frame: base\n    scale: {odom_topic: /wheels, source: odometry}\n    watchdog: 2.0\n"
    )
    mapper, robot = read_configs(file, ["camera_frame=eye"])
    assert (robot.base_frame, robot.camera_frame, robot.scale.odom_topic) == ("base", "eye", "/wheels")
    assert mapper.scale.source == "odometry"
    with pytest.raises(ConfigError, match=r"scale\.odom_topics"):
        read_configs(None, ["scale.odom_topics=/wheels"])
