"""What makes descriptors tell pixels apart: InfoNCE over true correspondences (Leroy et al., MASt3R, ECCV 2024, equations 9 and 10)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def matching_loss(
    descriptors_1: Tensor,  # [B, M, D] of unit length, at pixels of view 1
    descriptors_2: Tensor,  # [B, M, D] at the pixels of view 2 that show the same points
    valid: Tensor,  # [B, M] bool
    temperature: float = 0.07,
    confidence: Tensor | None = None,  # [B, M] above 0, of both ends
    alpha: float = 0.2,
) -> Tensor:
    """The mean of -log s(i, j) / sum_k s(k, j) - log s(i, j) / sum_k s(i, k) over correspondences, s = exp(cosine / temperature).

    The other correspondences of the same pair are what each is told from. With confidence: C l - alpha log C, as for points. In float32.
    """
    similarity = descriptors_1.float() @ descriptors_2.float().transpose(1, 2) / temperature  # [B, M, M]
    nobody = torch.finfo(similarity.dtype).min
    true = similarity.diagonal(dim1=1, dim2=2)
    to_2 = torch.where(valid[:, None, :], similarity, nobody).logsumexp(2) - true
    to_1 = torch.where(valid[:, :, None], similarity, nobody).logsumexp(1) - true
    loss = torch.where(valid, to_1 + to_2, 0.0)
    if confidence is not None:
        sure = torch.where(valid, confidence.float(), 1.0).clamp(1e-6, 1e6)
        loss = sure * loss - alpha * sure.log()
    return loss.sum() / valid.sum().clamp_min(1)


def at_pixels(values: Tensor, pixels: Tensor) -> Tensor:
    """values [B, H, W, D] at pixels [B, M, 2] (column, row; pixel centres lie at integers), bilinear: [B, M, D]."""
    size = torch.tensor([values.shape[2] - 1, values.shape[1] - 1], device=values.device)
    grid = (2 * pixels / size - 1)[:, None]
    found = F.grid_sample(values.movedim(-1, 1), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return found[:, :, 0].transpose(1, 2)
