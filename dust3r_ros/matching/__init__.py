"""What can be done with the outputs of a two-view estimator: matches, focal length, relative pose, depth of one picture."""

from dust3r_ros.matching.descriptors import match_descriptors, match_descriptors_fast
from dust3r_ros.matching.errors import MatchingError
from dust3r_ros.matching.focal import FocalEstimate, focal_length
from dust3r_ros.matching.from_network import describe_by_network, match_prediction
from dust3r_ros.matching.matches import Matches, in_source
from dust3r_ros.matching.monocular import MonocularDepth, monocular_depth
from dust3r_ros.matching.points import match_points
from dust3r_ros.matching.relative_pose import RelativePose, pose_difference, relative_pose
from dust3r_ros.matching.windows import Window, match_coarse_to_fine, window_pairs, windows_of

__all__ = [
    "FocalEstimate",
    "Matches",
    "MatchingError",
    "MonocularDepth",
    "RelativePose",
    "Window",
    "describe_by_network",
    "focal_length",
    "in_source",
    "match_coarse_to_fine",
    "match_descriptors",
    "match_descriptors_fast",
    "match_points",
    "match_prediction",
    "monocular_depth",
    "pose_difference",
    "relative_pose",
    "window_pairs",
    "windows_of",
]
