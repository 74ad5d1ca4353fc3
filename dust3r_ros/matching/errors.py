"""The error of this floor."""

from dust3r_ros.errors import Dust3rError


class MatchingError(Dust3rError):
    """Pointmaps, descriptors or pixels that do not belong together, or from which a task cannot be solved."""
