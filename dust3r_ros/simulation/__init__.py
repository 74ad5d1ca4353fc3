"""A furnished room and corridors, ray-cast: image sequences of a moving camera whose depth, poses and intrinsics are exactly known.

Knows nothing of mapping or of ROS. Tests, benchmarks and the demo measure against it.
"""

from dust3r_ros.simulation.descriptors import world_descriptors
from dust3r_ros.simulation.sequence import SimulatedSequence, SimulatedView
from dust3r_ros.simulation.walks import circle_sequence, corridor_sequence, identical_doors_sequence, ring_sequence, room_sequence

__all__ = [
    "SimulatedSequence",
    "SimulatedView",
    "circle_sequence",
    "corridor_sequence",
    "identical_doors_sequence",
    "ring_sequence",
    "room_sequence",
    "world_descriptors",
]
