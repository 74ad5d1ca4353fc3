"""Cameras, rays, similarity transforms and what follows from pointmaps. Knows nothing of the floors above it."""

from dust3r_ros.geometry.camera import Camera, DistortionModel
from dust3r_ros.geometry.errors import GeometryError
from dust3r_ros.geometry.focal import focal_from_pointmap
from dust3r_ros.geometry.pnp import PnpResult, reproject, solve_pnp
from dust3r_ros.geometry.procrustes import procrustes, robust_procrustes
from dust3r_ros.geometry.rectification import Rectification, working_camera
from dust3r_ros.geometry.rig_pnp import RigPose, Sight, solve_rig_pnp
from dust3r_ros.geometry.rolling_shutter import row_time, straightened, straightened_image, turn_between
from dust3r_ros.geometry.rotations import (
    inverse_pose,
    matrix_from_quaternion,
    nearest_rotation,
    pose_matrix,
    quaternion_from_matrix,
    rotation_angle,
    transform_points,
)
from dust3r_ros.geometry.similarity import Similarity

__all__ = [
    "Camera",
    "DistortionModel",
    "GeometryError",
    "PnpResult",
    "Rectification",
    "RigPose",
    "Sight",
    "Similarity",
    "focal_from_pointmap",
    "inverse_pose",
    "matrix_from_quaternion",
    "nearest_rotation",
    "pose_matrix",
    "procrustes",
    "quaternion_from_matrix",
    "reproject",
    "robust_procrustes",
    "rotation_angle",
    "row_time",
    "solve_pnp",
    "solve_rig_pnp",
    "straightened",
    "straightened_image",
    "transform_points",
    "turn_between",
    "working_camera",
]
