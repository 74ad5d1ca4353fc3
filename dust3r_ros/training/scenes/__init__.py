"""Scenes that are made up, ray-cast in batches: rooms, corridors, tables, streets, hills; depth, poses and intrinsics are exact."""

from dust3r_ros.training.scenes.config import CameraEffects, PairsConfig, SceneConfig, SceneError
from dust3r_ros.training.scenes.contact_sheet import picture_of
from dust3r_ros.training.scenes.correspondences import correspondences
from dust3r_ros.training.scenes.generator import GeneratedPairs
from dust3r_ros.training.scenes.overlap import overlaps
from dust3r_ros.training.scenes.sequences import GeneratedSequence, sequence

__all__ = [
    "CameraEffects",
    "GeneratedPairs",
    "GeneratedSequence",
    "PairsConfig",
    "SceneConfig",
    "SceneError",
    "correspondences",
    "overlaps",
    "picture_of",
    "sequence",
]
