"""The ROS-free heart: `Mapper.add(frame) -> MapUpdate`."""

from dust3r_ros.mapping.config import MapperConfig
from dust3r_ros.mapping.types import Frame, Keyframe, MapUpdate, TrackingState

__all__ = ["Frame", "Keyframe", "MapUpdate", "MapperConfig", "TrackingState"]
