"""Many pair predictions to poses, focal lengths and depths on one scale."""

from dust3r_ros.alignment.align import Alignment, AlignmentError, align
from dust3r_ros.alignment.aligner import Aligner, Correction, SettledView
from dust3r_ros.alignment.cleaning import clean_confidences, confidence_threshold, confident
from dust3r_ros.alignment.known_poses import pose_similarity
from dust3r_ros.alignment.lengths import Length
from dust3r_ros.alignment.link import Link
from dust3r_ros.alignment.local_window import AlignedView
from dust3r_ros.alignment.mount import Mount
from dust3r_ros.alignment.objective import objective, world_points
from dust3r_ros.alignment.priors import FocalPrior, MotionPrior, PosePrior, PriorError
from dust3r_ros.alignment.similarity_table import SimilarityTable
from dust3r_ros.alignment.sky import sky_mask
from dust3r_ros.alignment.warm_up import warm_up

__all__ = [
    "AlignedView",
    "Aligner",
    "Alignment",
    "AlignmentError",
    "Correction",
    "FocalPrior",
    "Length",
    "Link",
    "MotionPrior",
    "Mount",
    "PosePrior",
    "PriorError",
    "SettledView",
    "SimilarityTable",
    "align",
    "clean_confidences",
    "confidence_threshold",
    "confident",
    "objective",
    "pose_similarity",
    "sky_mask",
    "warm_up",
    "world_points",
]
