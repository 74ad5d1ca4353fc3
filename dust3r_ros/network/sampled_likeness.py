"""Products of each cell with a few places of the other picture: all are multiplied, a part of the picture at a time, and few are kept.

What is in memory at a time is bounded, forward and backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LARGEST = 1 << 22  # products at a time: 16 MB, what a CPU's caches hold
LARGEST_GPU = 1 << 27


def sampled_likeness(own: Tensor, others: Tensor, index: Tensor) -> Tensor:
    """own [B, M, F], others [B, K, F], index [B, M, J] of others: [B, M, J], own times the others at the index; float32."""
    return _SampledLikeness.apply(own, others, index)


class _SampledLikeness(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, others: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(own, others, index)
        found = torch.empty(index.shape, dtype=torch.float32, device=own.device)
        for pairs, rows in _parts(own, others):
            products = own[pairs, rows] @ others[pairs].transpose(1, 2)
            found[pairs, rows] = products.gather(2, index[pairs, rows]).float()
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        own, others, index = ctx.saved_tensors
        (gradient,) = gradients
        of_own, of_others = torch.empty_like(own), torch.zeros_like(others)
        for pairs, rows in _parts(own, others):
            spread = torch.zeros(*index[pairs, rows].shape[:2], others.shape[1], device=own.device)
            spread = spread.scatter_add_(2, index[pairs, rows], gradient[pairs, rows].float()).to(own.dtype)
            of_own[pairs, rows] = spread @ others[pairs]
            of_others[pairs] += spread.transpose(1, 2) @ own[pairs, rows]
        return of_own, of_others, None


def _parts(own: Tensor, others: Tensor) -> list[tuple[slice, slice]]:
    """Pairs and rows whose products fit."""
    largest = LARGEST_GPU if own.is_cuda else LARGEST
    batch, count = own.shape[:2]
    rows = min(count, max(1, largest // others.shape[1]))
    pairs = max(1, largest // (rows * others.shape[1]))
    return [(slice(b, b + pairs), slice(r, r + rows)) for b in range(0, batch, pairs) for r in range(0, count, rows)]
