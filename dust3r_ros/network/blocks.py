"""Transformer blocks of the two-view networks: pre-norm, with 2D rotary positions on queries and keys.

Su et al., RoFormer, 2021, applied to rows and columns as in CroCo v2 (Weinzaepfel et al., ICCV 2023).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.kernels import rotate_pair

NORM_EPS = 1e-6

Rotation = tuple[Tensor, Tensor]  # cosine and sine, each [N, head_dim]


def rope_2d(rows: int, columns: int, head_dim: int, base: float, device: torch.device) -> Rotation:
    """Rotations of a row-major grid of tokens: the first half of a head turns by the row, the second by the column.

    Within a half of width h element k is paired with k + h/2 and turned by position * base^(-2k/h).
    """
    half = head_dim // 2
    frequency = base ** (-2.0 * torch.arange(half // 2, dtype=torch.float32, device=device) / half)
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float32, device=device), torch.arange(columns, dtype=torch.float32, device=device), indexing="ij"
    )
    angles = [position.reshape(-1, 1) * frequency for position in (row, column)]
    angle = torch.cat([angles[0], angles[0], angles[1], angles[1]], dim=-1)
    return angle.cos(), angle.sin()


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(D)) v of [B, heads, N, D] and [B, heads, M, D]; everything fused, except where it is measured to be slower.

    On CPUs in bfloat16 the library's fused one is with its gradient up to six times slower than plain products (140 tokens). Without it,
    where no tiles multiply (AMX), it is 1.6 times slower than head by head, whose scores stay in the cache; with tiles 1.6 times faster.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v)
    scale = q.shape[-1] ** -0.5
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return (q * scale @ k.transpose(-2, -1)).softmax(-1) @ v
    if _multiplies_tiles():
        return F.scaled_dot_product_attention(q, k, v)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for image in range(q.shape[0]):
        for head in range(q.shape[1]):
            scores = torch.mm(q[image, head] * scale, k[image, head].T)
            torch.mm(scores.softmax(-1), v[image, head], out=out[image, head])
    return out


@lru_cache(maxsize=1)
def _multiplies_tiles() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def is_for_loops(x: Tensor) -> bool:
    """Whether what is done with it may be loops compiled for the CPU (Numba) instead of operations of torch: nobody records these."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()


def precise(layer: nn.Linear, x: Tensor) -> Tensor:
    """`x` as the type that the layer's weights have: the residual stream is float32, the matrix products may be less."""
    return x.to(layer.weight.dtype)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """x: [B, N, C]"""
        batch, count, width = x.shape
        q, k, v = self.qkv(precise(self.qkv, x)).view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        out = attention(*rotate_pair(q, k, rotation, rotation), v)
        return self.proj(out.transpose(1, 2).reshape(batch, count, width))


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor, rotation_x: Rotation, rotation_y: Rotation) -> Tensor:
        """x: [B, N, C] asks y: [B, M, C]"""

        def split(tokens: Tensor) -> Tensor:
            return tokens.view(*tokens.shape[:2], self.heads, -1).transpose(1, 2)

        x, y = precise(self.projq, x), precise(self.projk, y)
        q, k, v = split(self.projq(x)), split(self.projk(y)), split(self.projv(y))
        out = attention(*rotate_pair(q, k, rotation_x, rotation_y), v)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(precise(self.fc1, x))))


class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Looks at its own view, then at the other one."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.cross_attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio * width)
        self.norm_y = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor, y: Tensor, rotation_x: Rotation, rotation_y: Rotation) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation_x)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(y), rotation_x, rotation_y)
        return x + self.mlp(self.norm3(x))
