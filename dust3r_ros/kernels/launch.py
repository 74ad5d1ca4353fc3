"""Compiled kernels on torch's current device and stream.

Never run yet: no GPU was there when this was written. The kernels' arithmetic was tried on a CPU, and they compile for every architecture
that is tested.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dust3r_ros.kernels.compiler import compile_cubin
from dust3r_ros.kernels.errors import KernelError

Argument = Tensor | int | float | None


class Int32(int):
    """An integer that the kernel takes as 32 bits; others are 64."""


class Float64(float):
    """A number that the kernel takes as 64 bits; others are 32."""


def launch(
    file: str,
    function: str,
    grid: tuple[int, int],
    threads: int,
    arguments: list[Argument],
    defines: Mapping[str, int] | None = None,
) -> None:
    """Start `function` of `file`.cu on torch's current stream: no waiting, nothing allocated, so it can be part of a CUDA graph.

    Tensors go as their pointers (None as a null one), integers as 64 bits or `Int32`, floats as 32 or `Float64`.
    Raises KernelError if it cannot start.
    """
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    try:
        from cuda.core import LaunchConfig
        from cuda.core import launch as start

        with torch.cuda.device(device):
            kernel = _kernel(file, function, torch.cuda.current_device(), tuple(sorted((defines or {}).items())))
            config = LaunchConfig(grid=(*grid, 1), block=(threads, 1, 1))
            start(_stream(device), config, kernel, *(_plain(argument) for argument in arguments))
    except KernelError:
        raise
    except Exception as error:  # the driver's many kinds
        raise KernelError(f"kernel {function} cannot be started on {device}: {' '.join(str(error).split())[:300]}") from error


@lru_cache(maxsize=256)
def _kernel(file: str, function: str, device: int, defines: tuple[tuple[str, int], ...]) -> Any:
    from cuda.core import Device, ObjectCode

    Device(device).set_current()
    major, minor = torch.cuda.get_device_capability(device)
    code = compile_cubin(file, f"sm_{major}{minor}", dict(defines))
    return ObjectCode.from_cubin(code).get_kernel(function)


def _stream(device: torch.device) -> Any:
    from cuda.core import Stream

    return Stream.from_handle(torch.cuda.current_stream(device).cuda_stream)


def _plain(argument: Argument) -> Any:
    """As cuda-core takes it: a plain integer is 64 bits, and so is a pointer."""
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, Int32):
        return ctypes.c_int32(argument)
    if isinstance(argument, Float64):
        return ctypes.c_double(argument)
    return ctypes.c_float(argument) if isinstance(argument, float) else int(argument or 0)
