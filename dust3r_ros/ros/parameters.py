"""Every parameter of the node: the Mapper's settings and those that only ROS has, declared with range and description.

Values are held in frozen dataclasses; a change makes a new one. What is refused leaves the old value in place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from dust3r_ros.io.robot_config import ScaleTopicsConfig
from dust3r_ros.mapping.config import ConfigError, MapperConfig, setting, settings, with_settings
from dust3r_ros.ros.errors import ParameterError


@dataclass(frozen=True)
class PublishConfig:
    map_period: float = setting(1.0, "seconds between two publications of the map's changes, the path and the keyframes", 0.05, 3600.0)
    map_points_rate: float = setting(200_000.0, "points a second of the whole map on ~/map; a new listener gets it at once", 1.0, 1e9)
    status_period: float = setting(1.0, "seconds between two status and diagnostics messages", 0.1, 3600.0)
    cloud_min_confidence: float = setting(3.0, "points below this confidence stay out of ~/cloud", 1.0, 1e6)
    max_path_poses: int = setting(2000, "poses in ~/path at most; a longer path is thinned evenly", 2, 1_000_000)


def _camera_names(name: str, value: tuple[str, ...]) -> None:
    given = [camera for camera in value if camera]
    wrong = [camera for camera in given if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", camera) or given.count(camera) > 1]
    if wrong:
        raise ConfigError(f"'{name}' has {wrong[0]!r}: give each camera a name of its own, of letters, digits and _")


def _template(name: str, value: str) -> None:
    if set("{}") & set(_filled(value, "front")):
        raise ConfigError(f"'{name}' is {value!r}: only {{camera}} is replaced, e.g. /{{camera}}/image_raw")


def _filled(template: str, camera: str) -> str:
    return template.replace("{camera}", camera)


@dataclass(frozen=True)
class RigConfig:
    image: str = setting("/{camera}/image_raw", "topic of each camera's images; rig.NAME.image names one camera's own", check=_template)
    camera_info: str = setting("", "topic of each one's CameraInfo, with {camera}; empty: camera_info beside its images", check=_template)
    frame: str = setting("", "each one's optical frame, with {camera}; empty: its images' frame_id", check=_template)
    slop: float = setting(0.02, "seconds by which the stamps of one moment's images may differ", 0.0, 1.0)
    timeout: float = setting(0.1, "seconds of the images' time that a set waits for a camera that is late", 0.0, 10.0)


@dataclass(frozen=True)
class NodeConfig:
    image: str = setting("/camera/image_raw", "topic of the images; for compressed ones its base name")
    camera_info: str = setting("", "topic of the CameraInfo; empty: camera_info beside the image topic")
    image_transport: str = setting("raw", "raw: sensor_msgs/Image; compressed: sensor_msgs/CompressedImage", choices=("raw", "compressed"))
    reliability: str = setting("best_effort", "QoS reliability asked of the image's publisher", choices=("best_effort", "reliable"))
    cameras: tuple[str, ...] = setting(
        ("",), "names of the cameras of a rig, whose topics rig.* says; empty: one camera, on image", check=_camera_names
    )
    mode: str = setting(
        "mapping",
        "mapping: the map grows; localisation: the camera is found in a loaded map, which does not change",
        choices=("mapping", "localisation"),
    )
    map_file: str = setting("", "file of a saved map to start from; empty: none")
    camera_info_wait: float = setting(1.0, "seconds that the first image waits for its CameraInfo, if somebody publishes one", 0.0, 60.0)
    map_frame: str = setting("map", "frame of the map, z up, where the base or the camera was at the start")
    odom_frame: str = setting("odom", "frame of the odometry: smooth, drifts")
    base_frame: str = setting("", "the robot's frame; needs a static transform to the camera. Empty: the camera's frame is the child")
    camera_frame: str = setting("", "the camera's optical frame; empty: the images' frame_id")
    publish_tf: bool = setting(True, "publish to /tf at all")
    publish_odom_tf: bool = setting(True, "publish odom -> base; false: somebody else does, and only map -> odom is published")
    watchdog: float = setting(5.0, "seconds without an image after which the node says why; 0: never", 0.0, 3600.0)
    on_time_jump: str = setting(
        "auto",
        "when stamps jump back by over a second: reset the map, or keep it and drop the frames; auto: reset under use_sim_time",
        choices=("auto", "reset", "keep"),
    )
    publish: PublishConfig = field(default_factory=PublishConfig)
    scale: ScaleTopicsConfig = field(default_factory=ScaleTopicsConfig)
    rig: RigConfig = field(default_factory=RigConfig)

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.cameras if name)


AUTOSTART = ParameterDescriptor(description="configure and activate at the start; false: a lifecycle manager does", read_only=True)

# What subscriptions, frames and the estimator are made from when the node is configured.
AT_CONFIGURE = (
    "map_file",
    "image",
    "camera_info",
    "cameras",
    "image_transport",
    "reliability",
    "map_frame",
    "odom_frame",
    "base_frame",
    "camera_frame",
    "publish_tf",
    "publish_odom_tf",
)
AT_CONFIGURE_GROUPS = ("estimator.", "scale.odom_topic", "scale.depth_topic", "map.folder", "rig.")

ONE_CAMERA = "mode localisation takes one camera: clear 'cameras' and set 'image', or set mode to mapping"


class CameraInput(NamedTuple):
    """Topics and frame of one camera; an empty camera_info is beside the image, an empty frame the images' own."""

    image: str
    camera_info: str
    frame: str


class Parameters:
    """The node's parameters as typed configurations: `.node` and `.mapper`."""

    def __init__(self, node: Node, may_rebuild: Callable[[], bool], on_change: Callable[[], None]) -> None:
        """Declares them all. `may_rebuild` tells whether nothing is built yet; `on_change` is called after accepted changes.

        Raises ParameterError for a value given at the start (file, command line) that is of the wrong type or out of range.
        """
        self._ros_node = node
        self.node, self.mapper = NodeConfig(), MapperConfig()
        self._may_rebuild, self._on_change = may_rebuild, on_change
        self._names = {**settings(self.node), **settings(self.mapper)}
        self.autostart = bool(_declare(node, "autostart", True, AUTOSTART))
        given = {
            name: _declare(node, name, item.default, descriptor(item))
            for config in (self.node, self.mapper)
            for name, item in items(config)
        }
        try:
            self.node, self.mapper = self._with(given)
        except ConfigError as error:
            raise ParameterError(str(error)) from None
        node.add_on_set_parameters_callback(self._set)

    def cameras_inputs(self) -> dict[str, CameraInput]:
        """By camera of the rig, where its images come from: its own `rig.NAME.*`, else as the templates say."""
        found = {}
        for camera in self.node.camera_names:
            own = []
            for part in CameraInput._fields:
                name = f"rig.{camera}.{part}"
                if not self._ros_node.has_parameter(name):
                    described = ParameterDescriptor(description=f"camera {camera}: instead of what rig.{part} says; empty: as that says")
                    _declare(self._ros_node, name, "", described)
                own.append(str(self._ros_node.get_parameter(name).value) or _filled(getattr(self.node.rig, part), camera))
            found[camera] = CameraInput(*own)
        return found

    def _with(self, changes: dict[str, Any]) -> tuple[NodeConfig, MapperConfig]:
        known = settings(self.node)
        for_node = {name: value for name, value in changes.items() if name in known}
        for_mapper = {name: value for name, value in changes.items() if name not in known}
        return with_settings(self.node, for_node), with_settings(self.mapper, for_mapper)

    def _set(self, parameters: list[Parameter]) -> SetParametersResult:
        running = not self._may_rebuild()
        fixed = [parameter.name for parameter in parameters if built_from(parameter.name) and self._differs(parameter)]
        if running and fixed:
            return _refused(f"'{fixed[0]}' is used when the node is configured: clean the node up first, or give it at the start")
        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in self._names}
        if not changes:  # rig.NAME.*, and what is not ours
            return SetParametersResult(successful=True)
        try:
            new = self._with(changes)
        except ConfigError as error:
            return _refused(str(error))
        if running and new[0].camera_names and new[0].mode == "localisation":
            return _refused(ONE_CAMERA)
        self.node, self.mapper = new
        self._on_change()
        return SetParametersResult(successful=True)

    def _differs(self, parameter: Parameter) -> bool:
        """From what it is now. One that is just being declared does not: rig.NAME.*, when the node is configured."""
        name = parameter.name
        return self._ros_node.has_parameter(name) and bool(self._ros_node.get_parameter(name).value != parameter.value)


def _refused(reason: str) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=reason)


def built_from(name: str) -> bool:
    """Whether a parameter can only change before the node is configured."""
    return name in AT_CONFIGURE or name.startswith(AT_CONFIGURE_GROUPS)


def items(config: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """(dotted name, dataclass field) of every setting, groups flattened."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from items(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item


def descriptor(item: Field[Any]) -> ParameterDescriptor:
    """Range, choices and description of a setting as ROS tools show them."""
    low, high, choices = item.metadata["low"], item.metadata["high"], item.metadata["choices"]
    described = ParameterDescriptor(description=item.metadata["description"])
    if choices:
        described.additional_constraints = f"one of {', '.join(choices)}"
    if isinstance(item.default, float) and low is not None and high is not None:
        described.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    elif isinstance(item.default, int) and not isinstance(item.default, bool) and low is not None and high is not None:
        described.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return described


def _declare(node: Node, name: str, default: Any, described: ParameterDescriptor) -> Any:
    kind = type(default).__name__
    try:
        return node.declare_parameter(name, list(default) if isinstance(default, tuple) else default, described).value
    except ParameterException as error:
        ranges = [*described.floating_point_range, *described.integer_range]
        bounds = f" from {ranges[0].from_value:g} to {ranges[0].to_value:g}" if ranges else ""
        raise ParameterError(f"parameter '{name}': give a {kind}{bounds}, e.g. {default!r} ({' '.join(str(error).split())})") from None
