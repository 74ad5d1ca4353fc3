"""What this floor raises on purpose."""

from dust3r_ros.errors import Dust3rError


class GeometryError(Dust3rError):
    """A camera, a transform or a set of points from which no sound result can follow."""
