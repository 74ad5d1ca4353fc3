"""Many pair predictions to poses, focal lengths and depths on one scale."""

from dust3r_ros.alignment.align import Alignment, AlignmentError, align
from dust3r_ros.alignment.known_poses import pose_similarity
from dust3r_ros.alignment.objective import objective, world_points
from dust3r_ros.alignment.priors import FocalPrior, MotionPrior, PosePrior, PriorError

__all__ = [
    "Alignment",
    "AlignmentError",
    "FocalPrior",
    "MotionPrior",
    "PosePrior",
    "PriorError",
    "align",
    "objective",
    "pose_similarity",
    "world_points",
]
