"""The first weights of a network that starts from nothing."""

from __future__ import annotations

import torch
from torch import nn

from dust3r_ros.network import NetworkConfig, TwoViewNetwork
from dust3r_ros.network.blocks import DecoderBlock

FIRST_DEPTH = 1.0  # raw z of the first points: all lie in front of the camera, at about 1.7 units (camera head: 2.1)
SPREAD = 0.02


def fresh_network(config: NetworkConfig, seed: int) -> TwoViewNetwork:
    """As ViT and MAE have it: Xavier-uniform linear layers (the patch embedding as one), biases zero, mask token of spread 0.02.

    Convolutions keep PyTorch's own (Kaiming-uniform). The heads' last layers start small, with z biased forward: the first pointmap is a
    nearly flat wall before the camera and the first confidence about 2, so that no pixel starts with a wild loss.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TwoViewNetwork(config)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(network.patch_embed.proj.weight.view(config.encoder_width, -1))
        assert network.patch_embed.proj.bias is not None
        nn.init.zeros_(network.patch_embed.proj.bias)
        nn.init.normal_(network.mask_token, std=SPREAD)
        _begin_alike(network)
        if network.geometry is not None and network.geometry.matching.tracking is not None:
            network.geometry.matching.tracking.start_even()
        for head in (network.downstream_head1, network.downstream_head2):
            head.start_flat(FIRST_DEPTH)
    return network


def _begin_alike(network: TwoViewNetwork) -> None:
    """Both decoders begin as one (as in DUSt3R, section 4), and look in the other view for what is like themselves.

    That is what attention does whose queries and keys are made alike.
    """
    for block in network.dec_blocks:
        assert isinstance(block, DecoderBlock)
        block.cross_attn.projk.load_state_dict(block.cross_attn.projq.state_dict())
    network.dec_blocks2.load_state_dict(network.dec_blocks.state_dict())
