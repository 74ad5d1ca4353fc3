"""Scenes that are made up, ray-cast in batches: rooms, corridors, tables, streets, hills; depth, poses and intrinsics are exact."""

from dust3r_ros.training.scenes.config import CameraEffects, PairsConfig, SceneConfig, SceneError
from dust3r_ros.training.scenes.contact_sheet import picture_of
from dust3r_ros.training.scenes.generator import GeneratedPairs
from dust3r_ros.training.scenes.overlap import overlaps

__all__ = ["CameraEffects", "GeneratedPairs", "PairsConfig", "SceneConfig", "SceneError", "overlaps", "picture_of"]
