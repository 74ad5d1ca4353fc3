"""Many pair predictions to poses, focal lengths and depths on one scale."""

from dust3r_ros.alignment.align import Alignment, AlignmentError, align, place
from dust3r_ros.alignment.cleaning import clean_confidences, confidence_threshold, confident
from dust3r_ros.alignment.known_poses import pose_similarity
from dust3r_ros.alignment.objective import objective, world_points
from dust3r_ros.alignment.sky import sky_mask

__all__ = [
    "Alignment",
    "AlignmentError",
    "align",
    "clean_confidences",
    "confidence_threshold",
    "confident",
    "objective",
    "place",
    "pose_similarity",
    "sky_mask",
    "world_points",
]
