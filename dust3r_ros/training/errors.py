"""What can go wrong in training."""

from dust3r_ros.errors import Dust3rError


class TrainingError(Dust3rError):
    """A recipe, a checkpoint or data that no training can go on with."""
