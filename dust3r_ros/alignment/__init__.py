"""Many pair predictions to poses, focal lengths and depths on one scale."""

from dust3r_ros.alignment.align import Alignment, AlignmentError, align, place
from dust3r_ros.alignment.known_poses import pose_similarity
from dust3r_ros.alignment.objective import objective, world_points

__all__ = ["Alignment", "AlignmentError", "align", "objective", "place", "pose_similarity", "world_points"]
