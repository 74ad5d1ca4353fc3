"""What the kernels raise."""

from dust3r_ros.errors import Dust3rError


class KernelError(Dust3rError):
    """A kernel that cannot be compiled or started, or arguments that it does not take."""
