"""What each kernel computes, in torch: the specification, and what runs without a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

POINT_BYTES = 20  # x y z float32, rgb uint32 as 0x00RRGGBB, confidence float32: little-endian
QUERY_CHUNK, KEY_CHUNK = 256, 4096  # products held at once: 4 MiB of float32, which stay in a CPU's cache


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """x [..., N, D] turned by cosine, sine [N, D], in float32 whatever its type.

    Each half of a row (the first by the image's row, the second by its column) pairs element k with k + D/4:
    a' = a cos - b sin, b' = b cos + a sin.
    """
    exact = x.float()
    a, b, c, d = exact.chunk(4, dim=-1)
    return torch.addcmul(exact * cosine, torch.cat([-b, a, -d, c], dim=-1), sine).to(x.dtype)


def pack_points(points: Tensor, colors: Tensor, confidence: Tensor, to_frame: Tensor | None = None) -> Tensor:
    """points [N, 3] float32, colors [N, 3] uint8, confidence [N] float32 -> [N, 20] uint8; to_frame [4, 4] moves the points."""
    if to_frame is not None:
        move = to_frame.to(points)
        points = torch.addmm(move[:3, 3], points, move[:3, :3].T)
    words = torch.empty(len(points), POINT_BYTES // 4, dtype=torch.float32, device=points.device)
    words[:, :3] = points
    words[:, 4] = confidence
    packed = words.view(torch.uint8)
    packed[:, 12:15] = colors.flip(1)
    packed[:, 15] = 0
    return packed


def pack_depth(
    chosen: Tensor, depth: Tensor, confidence: Tensor, image: Tensor, intrinsics: tuple[float, float, float, float], to_frame: Tensor | None
) -> Tensor:
    """The pixels `chosen` [N] int64 (row * W + column) of depth, confidence [H, W] float32 and image [H, W, 3] uint8 -> [N, 20] uint8.

    intrinsics: fx, fy, cx, cy in pixels whose centres lie at integers; to_frame [4, 4]: camera to the cloud's frame.
    """
    fx, fy, cx, cy = intrinsics
    width = depth.shape[1]
    z = depth.reshape(-1)[chosen]
    u, v = (chosen % width).float(), (chosen // width).float()
    points = torch.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], dim=-1)
    return pack_points(points, image.reshape(-1, 3)[chosen], confidence.reshape(-1)[chosen], to_frame)


def nearest(queries: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
    """For each of queries [N, D] the index of the row of keys [M, D] with the largest dot product plus bias [M]: int64 [N].

    In float32; of equals the lowest index. Never holds more than QUERY_CHUNK x KEY_CHUNK products.
    """
    found = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for start in range(0, len(queries), QUERY_CHUNK):
        rows = queries[start : start + QUERY_CHUNK].float()
        best = torch.full((len(rows),), -torch.inf, device=rows.device)
        for offset in range(0, len(keys), KEY_CHUNK):
            products = rows @ keys[offset : offset + KEY_CHUNK].float().T
            if bias is not None:
                products += bias[offset : offset + KEY_CHUNK]
            value, index = products.max(dim=1)
            better = value > best
            best = torch.where(better, value, best)
            found[start : start + QUERY_CHUNK] = torch.where(better, index + offset, found[start : start + QUERY_CHUNK])
    return found


def nearest_3d(queries: Tensor, keys: Tensor) -> Tensor:
    """For each of queries [N, 3] the index of the nearest point of keys [M, 3]: int64 [N]. By a k-d tree, on the CPU."""
    from scipy.spatial import cKDTree

    if not len(queries):
        return torch.zeros(0, dtype=torch.int64, device=queries.device)
    tree = cKDTree(keys.detach().cpu().numpy(), balanced_tree=False)
    _, index = tree.query(queries.detach().cpu().numpy())
    return torch.as_tensor(index, dtype=torch.int64, device=queries.device)
