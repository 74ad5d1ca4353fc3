"""Products of each cell with a few places of the other picture.

Where nobody learns from them all are made once, and looked up; or, by loops on a CPU, only what is looked at, if that is less than to
write them all. Else, or where all are too many, those of a part of the picture are made at a time and the few are kept: what is in memory
is bounded, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dust3r_ros.network.blocks import is_for_loops

LARGEST = 1 << 22  # products at a time: 16 MB, what a CPU's caches hold
LARGEST_GPU = 1 << 27
WHOLE = 1 << 25  # products that are kept, 128 MB


class Likeness:
    """Of the cells of pictures, own [B, M, F], with all places of others, [B, K, F].

    `sparse`: with so many that the few are gathered; `few_by_loops`: with so many that loops, where they are, make none but the few.
    """

    def __init__(self, own: Tensor, others: Tensor, sparse: bool = False, few_by_loops: bool = False) -> None:
        self.own, self.others, self.sparse = own, others.contiguous(), sparse
        self.is_unlearned = not (torch.is_grad_enabled() and (own.requires_grad or others.requires_grad))
        is_large = len(own) * own.shape[1] * others.shape[1] > WHOLE or (few_by_loops and is_for_loops(own))
        self.is_whole = self.is_unlearned and not sparse and not is_large
        self.whole = own @ self.others.transpose(1, 2) if self.is_whole else own.new_empty(0)

    def at(self, index: Tensor) -> Tensor:
        """[B, M, J] with the places at the index [B, M, J]; float32."""
        if self.is_whole:
            return self.whole.gather(2, index).float()
        return (gathered_likeness if self.sparse else sampled_likeness)(self.own, self.others, index)

    def parts(self, largest: int) -> Iterator[Tensor]:
        """[B, m, K] with all places, of about as many cells at a time as `largest` products allow."""
        for part in range(0, self.own.shape[1], rows := max(1, largest // (len(self.own) * self.others.shape[1]))):
            cells = slice(part, part + rows)
            yield self.whole[:, cells] if self.is_whole else self.own[:, cells] @ self.others.transpose(1, 2)


def gathered_likeness(own: Tensor, others: Tensor, index: Tensor) -> Tensor:
    """The same as `sampled_likeness`, by copies of the others: less work where these are many and short."""
    batch, cells, few = index.shape
    first = torch.arange(0, batch * others.shape[1], others.shape[1], device=index.device)
    chosen = others.flatten(0, 1).index_select(0, (index + first[:, None, None]).flatten())
    return torch.bmm(chosen.view(batch * cells, few, -1), own.flatten(0, 1)[..., None]).view(index.shape).float()


def sampled_likeness(own: Tensor, others: Tensor, index: Tensor) -> Tensor:
    """own [B, M, F], others [B, K, F], index [B, M, J] of others: [B, M, J], own times the others at the index; float32."""
    return _SampledLikeness.apply(own, others, index)


class _SampledLikeness(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, others: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(own, others, index)
        found = torch.empty(index.shape, dtype=torch.float32, device=own.device)
        with torch.autocast(own.device.type, enabled=False):  # as precise as the cells are
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
