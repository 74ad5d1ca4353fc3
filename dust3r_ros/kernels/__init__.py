"""What is worth a CUDA kernel, each beside the torch twin that says what it computes and runs wherever there is no GPU."""

from dust3r_ros.kernels.errors import KernelError
from dust3r_ros.kernels.operations import nearest, nearest_3d, pack_depth, pack_points, rotate_pair

__all__ = ["KernelError", "nearest", "nearest_3d", "pack_depth", "pack_points", "rotate_pair"]
