"""The kernels as functions of tensors: on a GPU the kernel, elsewhere (and wherever a gradient is asked for) its torch twin.

A kernel that cannot be compiled or started is said once, and its twin goes on in its place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from dust3r_ros.kernels import twins
from dust3r_ros.kernels.errors import KernelError
from dust3r_ros.kernels.launch import Argument, Int32, launch

log = logging.getLogger(__name__)

THREADS = 256
NEAREST_THREADS = 128
WIDEST = 64  # values of a descriptor that a thread can hold
ELEMENTS = {torch.float32: 32, torch.bfloat16: 16, torch.float16: 161}

Rotation = tuple[Tensor, Tensor]  # cosine and sine, each [N, head_dim] float32

Result = TypeVar("Result")

_broken: set[str] = set()


def rotate_pair(q: Tensor, k: Tensor, rotation_q: Rotation, rotation_k: Rotation) -> tuple[Tensor, Tensor]:
    """q [B, heads, N, D] and k [B, heads, M, D] turned by their tokens' places, as `twins.rotate` says. On a GPU in place.

    Any strides but for the last dimension, which is contiguous. Raises KernelError for shapes that do not belong together.
    """
    for x, (cosine, sine), name in ((q, rotation_q, "queries"), (k, rotation_k, "keys")):
        if x.ndim != 4 or x.shape[3] % 4 or cosine.shape[-2:] != x.shape[2:] or sine.shape != cosine.shape:
            raise KernelError(
                f"{name} of shape {tuple(x.shape)} with rotations of {tuple(cosine.shape)}: give [B, heads, N, D] with D a multiple of 4, "
                "and cosine and sine [N, D]"
            )

    def kernel() -> tuple[Tensor, Tensor]:
        arguments: list[Argument] = []
        for x, rotation in ((q, rotation_q), (k, rotation_k)):
            arguments += [x, *x.stride()[:3], *(table.contiguous() for table in rotation), Int32(x.shape[2])]
        batch, heads, _, dim = q.shape
        arguments += [Int32(batch), Int32(heads), Int32(dim)]
        work = batch * heads * max(q.shape[2], k.shape[2]) * (dim // 4)
        launch("rope_2d", "rope_2d", (-(-work // THREADS), 2), THREADS, arguments, {"ELEMENT": ELEMENTS[q.dtype]})
        return q, k

    plain = rotation_q[0].ndim == rotation_k[0].ndim == 2
    fits = plain and q.dtype == k.dtype and q.dtype in ELEMENTS and q.shape[0] == k.shape[0] and q.stride(3) == k.stride(3) == 1
    return either("rope_2d", kernel, lambda: (twins.rotate(q, *rotation_q), twins.rotate(k, *rotation_k)), fits, q, k)


def pack_points(points: Tensor, colors: Tensor, confidence: Tensor, to_frame: Tensor | None = None) -> Tensor:
    """points [N, 3] float32, colors [N, 3] uint8 RGB, confidence [N] float32 -> the bytes of a PointCloud2, [N, 20] uint8.

    Fields x y z rgb confidence, little-endian. to_frame [4, 4] moves the points into another frame. Raises KernelError for other shapes.
    """
    count = len(points)
    if points.shape != (count, 3) or colors.shape != (count, 3) or confidence.shape != (count,) or colors.dtype != torch.uint8:
        raise KernelError(
            f"points {tuple(points.shape)}, colours {tuple(colors.shape)} ({colors.dtype}), confidence {tuple(confidence.shape)}: "
            "give [N, 3], [N, 3] uint8 and [N]"
        )

    def kernel() -> Tensor:
        out = torch.empty(count, twins.POINT_BYTES, dtype=torch.uint8, device=points.device)
        tensors = [points.contiguous(), colors.contiguous(), confidence.contiguous(), _move(to_frame, points.device), out]
        if count:
            launch("pack_points", "pack_points", (-(-count // THREADS), 1), THREADS, [*tensors, count])
        return out

    fits = points.dtype == confidence.dtype == torch.float32
    return either("pack_points", kernel, lambda: twins.pack_points(points, colors, confidence, to_frame), fits, points, colors, confidence)


def pack_depth(
    chosen: Tensor,
    depth: Tensor,
    confidence: Tensor,
    image: Tensor,
    intrinsics: tuple[float, float, float, float],
    to_frame: Tensor | None = None,
) -> Tensor:
    """The pixels `chosen` [N] int64 (row * W + column) of a depth image [H, W], as `pack_points` packs them.

    confidence [H, W] float32, image [H, W, 3] uint8 RGB, intrinsics fx, fy, cx, cy in pixels whose centres lie at integers, to_frame
    [4, 4] from the camera's frame. Raises KernelError for other shapes.
    """
    if depth.ndim != 2 or confidence.shape != depth.shape or image.shape != (*depth.shape, 3) or chosen.ndim != 1:
        raise KernelError(
            f"depth {tuple(depth.shape)}, confidence {tuple(confidence.shape)}, image {tuple(image.shape)}, chosen {tuple(chosen.shape)}: "
            "give [H, W], [H, W], [H, W, 3] and [N]"
        )

    def kernel() -> Tensor:
        out = torch.empty(len(chosen), twins.POINT_BYTES, dtype=torch.uint8, device=depth.device)
        tensors = [value.contiguous() for value in (chosen, depth, confidence, image)]
        numbers = [*(float(value) for value in intrinsics), Int32(depth.shape[1])]
        if len(chosen):
            arguments: list[Argument] = [*tensors, *numbers, _move(to_frame, depth.device), out, len(chosen)]
            launch("pack_points", "pack_depth", (-(-len(chosen) // THREADS), 1), THREADS, arguments)
        return out

    fits = depth.dtype == confidence.dtype == torch.float32 and image.dtype == torch.uint8 and chosen.dtype == torch.int64

    def twin() -> Tensor:
        return twins.pack_depth(chosen, depth, confidence, image, intrinsics, to_frame)

    return either("pack_depth", kernel, twin, fits, chosen, depth, confidence, image)


def nearest(queries: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
    """For each of queries [N, D] the index of the row of keys [M, D] with the largest dot product plus bias [M]: int64 [N].

    Exact, in float32; of equals the lowest index; rows must be finite. Raises KernelError for widths that differ, or without any key.
    """
    _check_search(queries, keys)
    if bias is not None and bias.shape != (len(keys),):
        raise KernelError(f"bias of shape {tuple(bias.shape)} for {len(keys)} keys: give one number a key")

    def kernel() -> Tensor:
        return _search("nearest", queries, keys, None if bias is None else bias.float().contiguous())

    return either("nearest", kernel, lambda: twins.nearest(queries, keys, bias), queries.shape[1] <= WIDEST, queries, keys)


def nearest_3d(queries: Tensor, keys: Tensor) -> Tensor:
    """For each of queries [N, 3] the index of the nearest point of keys [M, 3], of equally near ones any: int64 [N].

    Raises KernelError as `nearest` does.
    """
    _check_search(queries, keys)
    if queries.shape[1] != 3:
        raise KernelError(f"nearest points of shape {tuple(queries.shape)}: give [N, 3]")
    return either(
        "nearest_3d", lambda: _search("nearest_3d", queries, keys, None), lambda: twins.nearest_3d(queries, keys), True, queries, keys
    )


def _search(function: str, queries: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    found = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    if len(queries):
        defines = {"WIDTH": queries.shape[1], "THREADS": NEAREST_THREADS}
        arguments: list[Argument] = [queries.float().contiguous(), keys.float().contiguous(), bias, found, len(queries), len(keys)]
        launch("nearest", function, (-(-len(queries) // NEAREST_THREADS), 1), NEAREST_THREADS, arguments, defines)
    return found


def _check_search(queries: Tensor, keys: Tensor) -> None:
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise KernelError(f"nearest of shapes {tuple(queries.shape)} and {tuple(keys.shape)}: give (N, D) and (M, D)")
    if len(queries) and not len(keys):
        raise KernelError(f"nearest of {len(queries)} queries among no keys: give at least one")


def _move(to_frame: Tensor | None, device: torch.device) -> Tensor:
    """The upper three rows of a 4x4 matrix as the kernels take them."""
    matrix = torch.eye(4) if to_frame is None else to_frame
    return matrix[:3].to(device=device, dtype=torch.float32).contiguous()


def either(name: str, kernel: Callable[[], Result], twin: Callable[[], Result], fits: bool, *tensors: Tensor) -> Result:
    """What the kernel gives where it `fits` and all tensors are on a GPU and want no gradient, else what its twin gives."""
    on_gpu = fits and name not in _broken and all(tensor.is_cuda for tensor in tensors) and not torch.compiler.is_compiling()
    if not on_gpu or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return twin()
    try:
        return kernel()
    except KernelError as error:
        _broken.add(name)
        log.warning("the kernel %s is not used, torch does its work: %s", name, error)
        return twin()
