"""A furnished room, ray-cast: image sequences of a moving camera whose depth, poses and intrinsics are exactly known.

Knows nothing of mapping or of ROS. Tests and the demo measure against it.
"""

from dust3r_ros.simulation.descriptors import world_descriptors
from dust3r_ros.simulation.sequence import SimulatedView, room_sequence

__all__ = ["SimulatedView", "room_sequence", "world_descriptors"]
