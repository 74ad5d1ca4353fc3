"""dust3r_ros: dense 3D from plain cameras, as a ROS 2 package and as offline commands."""

__version__ = "0.1.0"
