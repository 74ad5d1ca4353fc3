"""Settings of the robot that a bag is from, by the names that the node has for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from dust3r_ros.mapping.config import setting


@dataclass(frozen=True)
class ScaleTopicsConfig:
    odom_topic: str = setting("", "topic of wheel or visual-inertial odometry (nav_msgs/Odometry); empty: TF odom -> base of somebody else")
    depth_topic: str = setting("", "topic of a depth sensor's image, 16UC1 or 32FC1, aligned with the camera's; empty: none")


@dataclass(frozen=True)
class RobotConfig:
    odom_frame: str = setting("odom", "frame of the odometry on /tf")
    base_frame: str = setting("", "the robot's frame; needs a static transform to the camera. Empty: the odometry's child_frame_id")
    camera_frame: str = setting("", "the camera's optical frame; empty: the images' frame_id")
    publish_odom_tf: bool = setting(True, "false: odom -> base on the bag's /tf is the robot's own and metric; true: it is not looked at")
    scale: ScaleTopicsConfig = field(default_factory=ScaleTopicsConfig)
