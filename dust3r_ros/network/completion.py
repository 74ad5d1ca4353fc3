"""Cross-view completion: what hides in one image is painted from the rest of it and from another view of the scene.

Weinzaepfel et al., CroCo, NeurIPS 2022, section 3, and CroCo v2, ICCV 2023. The encoder, the first decoder and their weights are the
two-view network's, so that what is learned here is where its training starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network.blocks import precise
from dust3r_ros.network.config import NetworkError
from dust3r_ros.network.two_view import TwoViewNetwork

VARIANCE_EPS = 1e-6


@dataclass(frozen=True, eq=False)
class Completion:
    patches: Tensor  # [B, N, 3 * P * P] normalised pixels of every patch of view 1, channel-major
    hidden: Tensor  # [B, N] bool: which patches were not shown


class CrossViewCompletion(nn.Module):
    """`prediction_head` on the decoder of a two-view network; parameters are named as in the published pretraining files."""

    def __init__(self, network: TwoViewNetwork) -> None:
        super().__init__()
        self.network = network
        self.prediction_head = nn.Linear(network.config.decoder_width, 3 * network.config.patch_size**2)

    def forward(self, images_1: Tensor, images_2: Tensor, hidden: Tensor, shown_count: int = 0) -> Completion:
        """Images [B, 3, H, W] as for `TwoViewNetwork.encode`; hidden [B, N] bool, as many hidden in every image.

        Raises NetworkError where that does not hold. `shown_count`: how many patches of each image are shown, where the caller knows it
        (`shown_of`) and vouches for it: then nothing waits for the device, and shapes are fixed.
        """
        network = self.network
        tokens, rotation, grid = network.embed(images_1)
        count = shown_count or self._checked_count(hidden, tokens)
        shown = hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, :count]  # False comes first, in its own order
        visible = tokens.gather(1, shown.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        encoded = network.encode_tokens(visible, (_of_each(rotation[0], shown), _of_each(rotation[1], shown)))
        embedded = network.decoder_embed(precise(network.decoder_embed, encoded)).float()
        x = network.mask_token.expand(*tokens.shape[:2], -1).clone()
        x = x.scatter(1, shown.unsqueeze(-1).expand(-1, -1, x.shape[-1]), embedded)
        other, rotation_2, grid_2 = network.embed(images_2)
        y = network.decoder_embed(precise(network.decoder_embed, network.encode_tokens(other, rotation_2))).float()
        turn_1, turn_2 = network.decoder_rotation(grid, x.device), network.decoder_rotation(grid_2, x.device)
        for block in network.dec_blocks:
            x = block(x, y, turn_1, turn_2)  # the second view stays as it is
        return Completion(self.prediction_head(precise(self.prediction_head, network.dec_norm(x))).float(), hidden)

    @staticmethod
    def _checked_count(hidden: Tensor, tokens: Tensor) -> int:
        """How many patches are shown of each image."""
        if hidden.shape != tokens.shape[:2] or hidden.dtype != torch.bool:
            raise NetworkError(f"hidden patches of shape {tuple(hidden.shape)} ({hidden.dtype}): give bool of {tuple(tokens.shape[:2])}")
        counts = (~hidden).sum(1)
        if int(counts.min()) != int(counts.max()) or int(counts.min()) == 0:
            raise NetworkError(f"{counts.tolist()} patches of the images are shown: show as many of each, and at least one")
        return int(counts[0])


def completion_loss(completion: Completion, images: Tensor, patch_size: int) -> Tensor:
    """Mean squared error over the hidden patches; each patch's pixels normalised by their own mean and variance (He et al., MAE, 2022)."""
    target = patches_of(images, patch_size)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + VARIANCE_EPS).sqrt()
    error = ((completion.patches - target) ** 2).mean(-1)
    return (error * completion.hidden).sum() / completion.hidden.sum()


def patches_of(images: Tensor, patch_size: int) -> Tensor:
    """[B, 3, H, W] to [B, N, 3 * P * P], channel-major as the heads have it."""
    return F.pixel_unshuffle(images, patch_size).flatten(2).transpose(1, 2)


def random_hidden(batch: int, count: int, share: float, generator: torch.Generator) -> Tensor:
    """[batch, count] bool: `share` of each image's patches hidden, at least one shown."""
    hide = count - shown_of(count, share)
    order = torch.rand(batch, count, generator=generator, device=generator.device).argsort(1)
    return order < hide


def shown_of(count: int, share: float) -> int:
    """How many of `count` patches `random_hidden` leaves."""
    return count - min(count - 1, round(share * count))


def _of_each(table: Tensor, shown: Tensor) -> Tensor:
    """[N, D] rows for each image's own tokens, [B, 1, n, D]."""
    return table[shown].unsqueeze(1)
