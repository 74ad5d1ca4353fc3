"""The nearest of many: by dot product for descriptors, by distance for points. All the search of this floor goes through these two."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree

from dust3r_ros.matching.errors import MatchingError

QUERY_CHUNK, KEY_CHUNK = 256, 4096  # products held at once: 4 MiB of float32, which stay in a CPU's cache (twice as fast as 64 MiB)


def nearest(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """For each of queries [N, D] the index of the row of keys [M, D] with the largest dot product: int64 [N], on the queries' device.

    Exact, in float32; of equal products the lowest index. Never holds more than QUERY_CHUNK x KEY_CHUNK products. Rows must be finite.
    Raises MatchingError for widths that differ and for queries without any key.
    """
    _check(queries, keys)
    found = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for start in range(0, len(queries), QUERY_CHUNK):
        rows = queries[start : start + QUERY_CHUNK].float()
        best = torch.full((len(rows),), -torch.inf, device=rows.device)
        for offset in range(0, len(keys), KEY_CHUNK):
            value, index = (rows @ keys[offset : offset + KEY_CHUNK].float().T).max(dim=1)
            better = value > best
            best = torch.where(better, value, best)
            found[start : start + QUERY_CHUNK] = torch.where(better, index + offset, found[start : start + QUERY_CHUNK])
    return found


def nearest_3d(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """For each of queries [N, 3] the index of the nearest point of keys [M, 3]: int64 [N], on the queries' device.

    By a k-d tree on the CPU. Rows must be finite. Raises MatchingError as `nearest` does.
    """
    _check(queries, keys)
    if not len(queries):
        return torch.zeros(0, dtype=torch.int64, device=queries.device)
    tree = cKDTree(keys.detach().cpu().numpy(), balanced_tree=False)
    _, index = tree.query(queries.detach().cpu().numpy())
    return torch.as_tensor(index, dtype=torch.int64, device=queries.device)


def _check(queries: torch.Tensor, keys: torch.Tensor) -> None:
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise MatchingError(f"nearest of shapes {tuple(queries.shape)} and {tuple(keys.shape)}: give (N, D) and (M, D)")
    if len(queries) and not len(keys):
        raise MatchingError(f"nearest of {len(queries)} queries among no keys: give at least one")
