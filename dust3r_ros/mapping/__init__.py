"""The ROS-free heart: `Mapper.add(frame) -> MapUpdate`."""

from dust3r_ros.mapping.config import MapperConfig
from dust3r_ros.mapping.types import Frame, Keyframe, MapSnapshot, MapUpdate, PointCloud, TrackingState

__all__ = ["Frame", "Keyframe", "MapSnapshot", "MapUpdate", "MapperConfig", "PointCloud", "TrackingState"]
