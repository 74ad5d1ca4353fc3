"""The kernels' twins against formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dust3r_ros.kernels import KernelError, pack_depth, pack_points, rotate_pair
from dust3r_ros.network.blocks import rope_2d

TYPES = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")])


def turned(x: np.ndarray, rows: int, columns: int, base: float) -> np.ndarray:
    """[N, D] by the definition, element by element."""
    out, half = np.empty_like(x), x.shape[1] // 2
    for n in range(len(x)):
        for part, position in enumerate(divmod(n, columns)):
            for k in range(half // 2):
                angle = position * base ** (-2 * k / half)
                a, b = x[n, part * half + k], x[n, part * half + k + half // 2]
                out[n, part * half + k] = a * np.cos(angle) - b * np.sin(angle)
                out[n, part * half + k + half // 2] = b * np.cos(angle) + a * np.sin(angle)
    assert rows * columns == len(x)
    return out


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("dim", "grid_q", "grid_k"), [(64, (3, 5), (3, 5)), (8, (1, 7), (4, 2)), (12, (5, 1), (1, 1))])
def test_queries_and_keys_turn_by_their_places(dtype: torch.dtype, dim: int, grid_q: tuple[int, int], grid_k: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(dim)
    packed = torch.randn(2, grid_q[0] * grid_q[1], 3, 4, dim, generator=generator).to(dtype)
    q = packed.permute(2, 0, 3, 1, 4)[0]  # a strided view, as attention has it
    k = torch.randn(2, 4, grid_k[0] * grid_k[1], dim, generator=generator).to(dtype)
    before = q.clone(), k.clone()
    rotations = [rope_2d(*grid, dim, 100.0, torch.device("cpu")) for grid in (grid_q, grid_k)]
    for got, x, grid in zip(rotate_pair(q, k, *rotations), before, (grid_q, grid_k), strict=True):
        assert got.dtype == dtype
        for image in range(2):
            for head in range(4):
                expected = turned(x[image, head].double().numpy(), *grid, 100.0)
                np.testing.assert_allclose(got[image, head].double().numpy(), expected, atol=TYPES[dtype] * 4, rtol=TYPES[dtype] * 2)


def cloud(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(count)
    return (
        torch.from_numpy(rng.normal(0, 5, (count, 3)).astype(np.float32)),
        torch.from_numpy(rng.integers(0, 256, (count, 3), dtype=np.uint8)),
        torch.from_numpy(rng.uniform(1, 30, count).astype(np.float32)),
    )


@pytest.mark.parametrize("count", [0, 1, 1000])
@pytest.mark.parametrize("moved", [False, True])
def test_packed_points_are_records(count: int, moved: bool) -> None:
    points, colors, confidence = cloud(count)
    to_frame = np.eye(4)
    if moved:
        to_frame[:3] = [[0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1, 0.5]]
    records = pack_points(points, colors, confidence, torch.from_numpy(to_frame) if moved else None).numpy().reshape(-1).view(POINT)
    assert len(records) == count
    expected = points.numpy() @ to_frame[:3, :3].T + to_frame[:3, 3]
    np.testing.assert_allclose(np.stack([records["x"], records["y"], records["z"]], axis=1), expected, rtol=1e-6, atol=1e-6)
    red, green, blue = colors.numpy().T.astype(np.uint32)
    assert np.array_equal(records["rgb"], red << 16 | green << 8 | blue)
    assert np.array_equal(records["confidence"], confidence.numpy())


def test_packed_depth_is_its_pixels_points() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 9, (13, 17)).astype(np.float32)
    image, confidence = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8), rng.uniform(1, 9, (13, 17)).astype(np.float32)
    chosen = np.flatnonzero(confidence > 4)
    fx, fy, cx, cy = 20.0, 21.0, 8.2, 6.1
    v, u = np.divmod(chosen, 17)
    z = depth.ravel()[chosen]
    points = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], axis=1)
    move = np.eye(4)
    move[:3, 3] = 1, 2, 3
    tensors = [torch.from_numpy(value) for value in (chosen, depth, confidence, image)]
    records = pack_depth(*tensors, (fx, fy, cx, cy), torch.from_numpy(move)).numpy().reshape(-1).view(POINT)
    found = np.stack([records["x"], records["y"], records["z"]], axis=1)
    np.testing.assert_allclose(found - [1, 2, 3], points, rtol=1e-5, atol=1e-5)
    assert np.array_equal(records["confidence"], confidence.ravel()[chosen])
    assert np.array_equal(records["rgb"] & 255, image.reshape(-1, 3)[chosen, 2])


def test_gradients_go_through() -> None:
    q = torch.randn(1, 2, 6, 8, requires_grad=True)
    rotation = rope_2d(2, 3, 8, 100.0, torch.device("cpu"))
    out, _ = rotate_pair(q, q, rotation, rotation)
    out.square().sum().backward()
    torch.testing.assert_close(q.grad, 2 * q.detach())  # a rotation keeps lengths


def test_what_does_not_belong_together_is_named() -> None:
    points, colors, confidence = cloud(5)
    with pytest.raises(KernelError, match=r"confidence \(4,\)"):
        pack_points(points, colors, confidence[:4])
    with pytest.raises(KernelError, match=r"colours \(5, 3\) \(torch.float32\)"):
        pack_points(points, colors.float(), confidence)
    with pytest.raises(KernelError, match=r"chosen \(5, 3\)"):
        pack_depth(points, torch.zeros(3, 3), torch.zeros(3, 3), torch.zeros(3, 3, 3, dtype=torch.uint8), (1, 1, 1, 1))
    rotation = rope_2d(2, 3, 8, 100.0, torch.device("cpu"))
    with pytest.raises(KernelError, match=r"keys of shape \(1, 2, 5, 8\)"):
        rotate_pair(torch.zeros(1, 2, 6, 8), torch.zeros(1, 2, 5, 8), rotation, rotation)
