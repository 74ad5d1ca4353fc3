"""ros2 launch dust3r_ros dust3r.launch.py image:=/camera/image_raw

The node configures and activates itself. With bagfile:= the bag is played, with its clock, as soon as the node listens.
"""

import os
from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, OpaqueFunction, SetEnvironmentVariable, TimerAction
from launch_ros.actions import Node
from launch_ros.ros_adapters import get_ros_node

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

CONFIG = Path(__file__).parent.parent / "config"  # beside launch/, in the sources and installed
NODE_NAME = "dust3r"
IMAGE_TYPES = {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"}

ARGUMENTS = (
    ("image", "", "topic of the images; empty: what params_file says"),
    ("camera_info", "", "topic of the CameraInfo; empty: camera_info beside the image topic"),
    ("cameras", "", "names of a rig's cameras, e.g. front,left,right, on /NAME/image_raw; empty: what params_file says"),
    ("compressed", "false", "true: sensor_msgs/CompressedImage on IMAGE/compressed"),
    ("model", "", "two-view estimator: auto, flow, dust3r_512_dpt, ...; empty: what params_file says"),
    ("weights", "", "file of the network's weights; empty: what params_file says"),
    ("params_file", str(CONFIG / "dust3r.yaml"), "parameters of the node"),
    ("use_sim_time", "false", "true: time comes from /clock; always so with bagfile"),
    ("rviz", "false", "true: show the map, the camera and its depth in RViz"),
    ("bagfile", "", "bag to play to the node; empty: live images"),
    ("mode", "", "mapping, or localisation in map_file; empty: what params_file says"),
    ("map_file", "", "file of a saved map to start from; empty: what params_file says"),
    ("base_frame", "", "the robot's frame, with a static transform to the camera; empty: what params_file says"),
)


def generate_launch_description() -> LaunchDescription:
    declared = [DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS]
    return LaunchDescription([*declared, OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = {name: context.launch_configurations[name] for name, _, _ in ARGUMENTS}
    use_sim_time = _is_true("use_sim_time", given) or bool(given["bagfile"])
    changes: dict[str, object] = {name: given[name] for name in ("image", "camera_info", "base_frame", "mode", "map_file") if given[name]}
    changes |= {f"estimator.{name}": given[name] for name in ("model", "weights") if given[name]}
    if given["cameras"]:
        changes["cameras"] = [name.strip() for name in given["cameras"].strip("[]").split(",")]
    if _is_true("compressed", given):
        changes["image_transport"] = "compressed"
    if use_sim_time:
        changes["use_sim_time"] = True

    parameters = [given["params_file"], changes] if changes else [given["params_file"]]
    actions: list[LaunchDescriptionEntity] = [
        *_transport(),
        Node(package="dust3r_ros", executable="dust3r_node", name=NODE_NAME, parameters=parameters, output="screen"),
    ]
    if _is_true("rviz", given):
        view = ["-d", str(CONFIG / "dust3r.rviz")]
        actions.append(Node(package="rviz2", executable="rviz2", name="rviz2", arguments=view, parameters=[{"use_sim_time": use_sim_time}]))
    if given["bagfile"]:
        actions.append(OpaqueFunction(function=_play_when_node_listens, args=[given["bagfile"]]))
    return actions


def _transport() -> list[LaunchDescriptionEntity]:
    """Fast DDS loses most images of a camera's size over its default transports; what the user has set stands."""
    settings = ("FASTDDS_BUILTIN_TRANSPORTS", "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    if any(os.environ.get(name) for name in settings):
        return []
    if os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST" or os.environ.get("ROS_LOCALHOST_ONLY") == "1":
        # LARGE_DATA does not go with discovery on this machine alone: nearly nothing arrives.
        remedy = f"export FASTDDS_DEFAULT_PROFILES_FILE={CONFIG / 'fastdds_loopback.xml'} for the camera and for this launch"
        return [LogInfo(msg=f"discovery is limited to this machine: if images do not arrive, {remedy}")]
    # Processes with and without LARGE_DATA do not discover one another at all, so it has to be said.
    remedy = "export it for the camera's driver and your shells too, or FASTDDS_BUILTIN_TRANSPORTS=DEFAULT before this launch"
    return [
        LogInfo(msg=f"FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA, so that whole images arrive: {remedy}; else they and this node do not meet"),
        SetEnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA"),
    ]


def _play_when_node_listens(context: LaunchContext, bag: str) -> list[LaunchDescriptionEntity]:
    """Looks every half second; a bag that starts earlier would lose its first images."""
    observer = get_ros_node(context)
    for name, namespace in observer.get_node_names_and_namespaces():
        if name == NODE_NAME:
            topics = observer.get_subscriber_names_and_types_by_node(name, namespace)
            if any(IMAGE_TYPES.intersection(types) for _, types in topics):
                return [ExecuteProcess(cmd=["ros2", "bag", "play", bag, "--clock"], output="screen")]
    return [TimerAction(period=0.5, actions=[OpaqueFunction(function=_play_when_node_listens, args=[bag])])]


def _is_true(name: str, given: dict[str, str]) -> bool:
    value = given[name].lower()
    if value not in ("true", "false"):
        raise RuntimeError(f"{name}:={given[name]} is neither true nor false")
    return value == "true"
