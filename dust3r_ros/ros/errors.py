"""Errors of the node and its tools."""

from __future__ import annotations

from dust3r_ros.errors import Dust3rError
from dust3r_ros.io.transforms import TransformError

__all__ = ["ParameterError", "RosError", "TransformError"]


class RosError(Dust3rError):
    """The node, the player or the recorder cannot do what it was asked for."""


class ParameterError(RosError):
    """A parameter of the wrong type, out of range, or not to be changed now."""
