"""The node's transforms: as they are for bags."""

from dust3r_ros.io.transforms import TransformBuffer

__all__ = ["TransformBuffer"]
