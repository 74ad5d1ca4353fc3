"""The ROS-free heart: `Mapper.add(frame) -> MapUpdate`."""

from dust3r_ros.mapping.config import ConfigError, MapperConfig, settings, with_settings
from dust3r_ros.mapping.live_tracking import LiveTracking
from dust3r_ros.mapping.localiser import Localiser
from dust3r_ros.mapping.mapper import FrameError, Mapper, StampError
from dust3r_ros.mapping.places.localisation import Localisation, LocalisationError, localise
from dust3r_ros.mapping.points.keyframe_views import depth_image, keyframe_cloud
from dust3r_ros.mapping.rigs.rig import FrameSet, Rig, RigError
from dust3r_ros.mapping.rigs.rig_mapper import RigMapper
from dust3r_ros.mapping.scale.depth_readings import DepthError, depth_of_ranges
from dust3r_ros.mapping.scale.scale_estimator import ScaleError
from dust3r_ros.mapping.scale.scale_fusion import MapScale
from dust3r_ros.mapping.types import Frame, Keyframe, MapSnapshot, MapUpdate, PointCloud, TrackingState

__all__ = [
    "ConfigError",
    "DepthError",
    "Frame",
    "FrameError",
    "FrameSet",
    "Keyframe",
    "LiveTracking",
    "Localisation",
    "LocalisationError",
    "Localiser",
    "MapScale",
    "MapSnapshot",
    "MapUpdate",
    "Mapper",
    "MapperConfig",
    "PointCloud",
    "Rig",
    "RigError",
    "RigMapper",
    "ScaleError",
    "StampError",
    "TrackingState",
    "depth_image",
    "depth_of_ranges",
    "keyframe_cloud",
    "localise",
    "settings",
    "with_settings",
]
