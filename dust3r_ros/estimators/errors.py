"""The error of this floor."""

from dust3r_ros.errors import Dust3rError


class EstimatorError(Dust3rError):
    """An image, a request or a setting that an estimator cannot work with."""
