"""What the node tells the world, built only for those who listen.

`motion` follows each image, on the tracking thread. All else runs on the mapping thread: `keyframes` tells what became of an image,
`latched` brings whole map, path and keyframe graph up to date.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from dust3r_ros_msgs.msg import Keyframe as KeyframeMessage
from dust3r_ros_msgs.msg import KeyframeGraph, MapTiles
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from dust3r_ros.mapping import Keyframe, Localiser, Mapper, MapUpdate, keyframe_cloud
from dust3r_ros.mapping.types import Standpoint
from dust3r_ros.ros.conversion import (
    cloud_message,
    pose_message,
    to_header,
    to_time,
    transform_message,
)
from dust3r_ros.ros.depth_topics import DepthTopics
from dust3r_ros.ros.errors import RosError, TransformError
from dust3r_ros.ros.map_updates import MapUpdates
from dust3r_ros.ros.odometry import OdometryModel
from dust3r_ros.ros.parameters import Parameters
from dust3r_ros.ros.placement import Placed, Placement

Warn = Callable[[str], None]

RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
EVERY_FRAME = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
NOTHING = -1  # version of the map that the next listener of ~/map_updates was told: the first hears all
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class MapPublishers:
    """All topics that carry poses, depth and the map."""

    def __init__(
        self, node: Node, parameters: Parameters, placement: Placement, warn: Warn, frame_of: Callable[[str], str] | None = None
    ) -> None:
        """`frame_of`: of a rig, each camera's optical frame by its name."""
        self._frame_of = frame_of
        self._node, self._parameters, self._placement, self._warn = node, parameters, placement, warn
        self._odometry_model = OdometryModel()
        self._last_depth = -1  # index of the newest keyframe whose depth went out
        self._map_version = self._path_version = 0  # count the changes; latched topics remember which one they carry
        self._sent: dict[str, int] = {}
        self._camera_frame, self._stamp = "", 0
        self._window: tuple[int, ...] = ()
        self._counted = 0  # version of the map whose points were counted
        self._map_size = self._map_listeners = 0  # points and listeners of the newest ~/map
        self._map_sent = -math.inf  # when that was, time.monotonic()
        self._updates_sent = NOTHING

        def publisher(kind: type, topic: str, qos: QoSProfile) -> Any:
            return node.create_publisher(kind, topic, qos)

        self._tf = publisher(TFMessage, "/tf", EVERY_FRAME)
        self._odometry = publisher(Odometry, "~/odometry", EVERY_FRAME)
        self._cloud = publisher(PointCloud2, "~/cloud", RELIABLE)
        cameras = parameters.node.camera_names
        where = {name: f"~/{name}" for name in cameras} if cameras else {"": "~"}
        self._depths = {name: DepthTopics(node, topic, EVERY_FRAME) for name, topic in where.items()}
        self._map = publisher(PointCloud2, "~/map", LATCHED)
        self._path = publisher(Path, "~/path", LATCHED)
        self._keyframes = publisher(KeyframeGraph, "~/keyframes", LATCHED)
        self._updates = MapUpdates(node)
        self._all = [self._tf, self._odometry, self._cloud, self._map, self._path, self._keyframes, self._updates.publisher]

    def destroy(self) -> None:
        for publisher in self._all:
            self._node.destroy_publisher(publisher)
        for topics in self._depths.values():
            topics.destroy()

    # ---- every image, on the tracking thread ------------------------------------------------------------------------------------------

    def motion(self, update: MapUpdate, camera_frame: str) -> None:
        """TF and odometry of an image."""
        self._camera_frame, self._stamp = camera_frame, update.frame.stamp
        self._path_version += update.pose is not None
        try:
            self._placement.locate_camera(camera_frame, update.frame.stamp)
            placed = self._placement.place(update)
        except TransformError as error:
            self._warn(f"no TF is published: {error}")
            return
        self._publish_motion(update, placed)

    # ---- what became of some of them, on the mapping thread ----------------------------------------------------------------------------

    def keyframes(self, update: MapUpdate, camera_frame: str) -> None:
        """Depth and cloud of a new keyframe."""
        self._camera_frame = camera_frame
        if update.keyframes or update.corrected:
            self.changed()
        if not update.is_keyframe:
            return
        self._window = tuple(keyframe.index for keyframe in update.keyframes)
        for keyframe in update.keyframes:
            if keyframe.index > self._last_depth:
                self._publish_depth(keyframe)
        if self._cloud.get_subscription_count() and self._placement.map_from_world is not None:
            for keyframe in self._newest(update):
                cloud = keyframe_cloud(keyframe, self._parameters.node.publish.cloud_min_confidence)
                self._cloud.publish(cloud_message(cloud, self._map_header(keyframe.stamp), self._placement.map_from_world))

    def _newest(self, update: MapUpdate) -> list[Keyframe]:
        """The image's own keyframe; of a rig, each camera's newest."""
        return list({keyframe.name: keyframe for keyframe in update.keyframes}.values())

    def _publish_motion(self, update: MapUpdate, placed: Placed) -> None:
        config, stamp = self._parameters.node, update.frame.stamp
        transforms = []
        if placed.map_odom is not None:
            transforms.append(transform_message(placed.map_odom, to_header(stamp, config.map_frame), config.odom_frame))
        if placed.map_odom is not None and placed.odom_child is not None and config.publish_odom_tf and not placed.lost:
            transforms.append(transform_message(placed.odom_child, to_header(stamp, config.odom_frame), placed.child))
        parent = self._placement.second_parent()
        if parent is not None:
            remedy = f"set base_frame, e.g. to '{parent}'" if not config.base_frame else "set publish_odom_tf to false"
            self._warn(f"no TF is published: '{placed.child}' has the parent '{parent}' already, a frame has only one: {remedy}")
        elif transforms and config.publish_tf:
            self._tf.publish(TFMessage(transforms=transforms))
        if placed.odom_child is not None:  # also without listeners: its covariance is built from the whole way
            tracked = update.pose is not None
            model = self._odometry_model
            covariance = self._placement.odometry_covariance(update, placed.odom_child)
            message = model.message(
                stamp, config.odom_frame, placed.child, placed.odom_child, tracked, update.inliers, update.found_again, covariance
            )
            if self._odometry.get_subscription_count():
                self._odometry.publish(message)

    def _publish_depth(self, keyframe: Keyframe) -> None:
        """In the camera's own pixels; each keyframe once, as it was when it came into the map."""
        self._last_depth = keyframe.index
        topics = self._depths.get(keyframe.name)
        if topics is not None:  # else of a map that was saved by other cameras
            topics.publish(keyframe, self._camera_frame if self._frame_of is None else self._frame_of(keyframe.name))

    # ---- the whole ---------------------------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """The map is another one than was told."""
        self._map_version += 1
        self._path_version += 1

    def restarted(self, window: tuple[int, ...] = (), last_index: int = -1) -> None:
        """The Mapper began anew, or with a saved map whose newest keyframe is `last_index`."""
        self._window, self._last_depth = window, last_index
        self._odometry_model.reset()
        self.changed()

    def latched_is_due(self) -> bool:
        """Whether a listener would hear something new; for any thread."""
        return self._updates_are_due() or any(self._is_due(publisher) for publisher in (self._map, self._path, self._keyframes))

    def latched(self, mapper: Mapper | Localiser) -> None:
        """Bring latched topics that have a listener up to date; the middleware repeats them to those who come later."""
        to_map = self._placement.map_from_world
        if to_map is None and mapper.standpoints:
            return  # nobody knows yet where the base is
        header = self._map_header(self._stamp)
        if self._updates_are_due():
            if self._updates_sent == NOTHING:
                self._updates.forget()
            self._updates_sent = self._map_version
            self._updates.publish(mapper, header, to_map)
        if self._take(self._map):
            cloud = mapper.cloud()
            self._map_size, self._map_listeners, self._map_sent = len(cloud), self._map.get_subscription_count(), time.monotonic()
            self._map.publish(cloud_message(cloud, header, to_map))
        if self._take(self._path):
            self._path.publish(Path(header=header, poses=self._path_poses(mapper)))
        if self._take(self._keyframes):
            self._keyframes.publish(self._graph(mapper, header))

    def count_is_due(self) -> bool:
        """Whether the number of map points is of an older map; for any thread."""
        return self._counted != self._map_version

    def count(self, mapper: Mapper | Localiser) -> int:
        """Points of the map."""
        self._counted = self._map_version
        return mapper.points

    def all_tiles(self, mapper: Mapper | Localiser) -> MapTiles:
        """The map for one who came late to ~/map_updates. Raises RosError where nobody knows yet in which frame it lies."""
        to_map = self._placement.map_from_world
        if to_map is None and mapper.standpoints:
            base = self._parameters.node.base_frame
            raise RosError(f"nobody knows yet how the map lies in its frame: publish the transform from '{base}' to the camera")
        return self._updates.whole(mapper, self._map_header(self._stamp), to_map)

    def _updates_are_due(self) -> bool:
        if not self._updates.has_listeners:
            self._updates_sent = NOTHING
        return bool(self._map_version and self._updates_sent != self._map_version and self._updates.has_listeners)

    def _is_due(self, publisher: Any) -> bool:
        version, listeners = self._version_of(publisher), publisher.get_subscription_count()
        due = bool(version and self._sent.get(publisher.topic_name) != version and listeners)
        if publisher is not self._map:
            return due
        is_new = listeners > self._map_listeners
        self._map_listeners = min(listeners, self._map_listeners)
        return due and (is_new or self._map_may_come_again())

    def _map_may_come_again(self) -> bool:
        """The whole of a large map comes rarely: what changed is on ~/map_updates."""
        return time.monotonic() >= self._map_sent + self._map_size / self._parameters.node.publish.map_points_rate

    def _version_of(self, publisher: Any) -> int:
        return self._path_version if publisher is self._path else self._map_version

    def _take(self, publisher: Any) -> bool:
        due = self._is_due(publisher)
        if due:
            self._sent[publisher.topic_name] = self._version_of(publisher)
        return due

    def _path_poses(self, mapper: Mapper | Localiser) -> list[PoseStamped]:
        trajectory = mapper.trajectory(self._parameters.node.publish.max_path_poses)
        frame = self._parameters.node.map_frame
        return [
            PoseStamped(header=to_header(stamp, frame), pose=pose_message(self._placement.child_pose(pose))) for stamp, pose in trajectory
        ]

    def _graph(self, mapper: Mapper | Localiser, header: Header) -> KeyframeGraph:
        to_map, window = self._placement.map_from_world, set(self._window)
        keyframes = [] if to_map is None else [_keyframe_message(one, to_map, one.index in window) for one in mapper.standpoints.values()]
        edges = np.array(mapper.edges if keyframes else (), np.uint32).reshape(-1, 2)
        return KeyframeGraph(header=header, keyframes=keyframes, edges_i=edges[:, 0].tolist(), edges_j=edges[:, 1].tolist())

    def _map_header(self, stamp: int) -> Header:
        return to_header(stamp, self._parameters.node.map_frame)


def _keyframe_message(keyframe: Standpoint, to_map: np.ndarray[Any, Any], in_window: bool) -> KeyframeMessage:
    stamp: Time = to_time(keyframe.stamp)
    return KeyframeMessage(
        index=keyframe.index,
        stamp=stamp,
        pose=pose_message(to_map @ keyframe.pose),
        width=keyframe.source.width,
        height=keyframe.source.height,
        k=keyframe.source.matrix.ravel().tolist(),
        in_window=in_window,
    )
