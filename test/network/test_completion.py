"""Cross-view completion: what is hidden cannot leak in, the other view can, and it learns."""

from __future__ import annotations

import pytest
import torch
from support.networks import SMALL, small_network

from dust3r_ros.network import CrossViewCompletion, NetworkError, completion_loss, load_network, random_hidden, save_network
from dust3r_ros.network.completion import patches_of


def images(seed: int, batch: int = 2) -> torch.Tensor:
    coarse = torch.rand(batch, 3, 6, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(48, 64), mode="bicubic").clamp(-1, 1)


def hidden(seed: int = 0, batch: int = 2, share: float = 0.75) -> torch.Tensor:
    return random_hidden(batch, 12, share, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("share", "shown"), [(0.9, 1), (0.5, 6), (0.0, 12), (1.0, 1)])
def test_as_many_are_hidden_as_asked_for_and_never_all(share: float, shown: int) -> None:
    assert (~hidden(share=share)).sum(1).tolist() == [shown, shown]
    assert not torch.equal(hidden(0), hidden(1))


def test_hidden_pixels_change_nothing_and_shown_ones_do() -> None:
    completion = CrossViewCompletion(small_network(SMALL)).eval()
    first, second, mask = images(0), images(1), hidden()
    with torch.inference_mode():
        reference = completion(first, second, mask).patches
        assert reference.shape == (2, 12, 768)
        patches = patches_of(first, 16)
        noise = torch.randn(patches.shape, generator=torch.Generator().manual_seed(5))

        def changed(where: torch.Tensor) -> torch.Tensor:
            altered = torch.where(where.unsqueeze(-1), noise, patches)
            return torch.nn.functional.pixel_shuffle(altered.transpose(1, 2).unflatten(2, (3, 4)), 16)

        torch.testing.assert_close(completion(changed(mask), second, mask).patches, reference)
        assert not torch.allclose(completion(changed(~mask), second, mask).patches, reference)
        assert not torch.allclose(completion(first, images(2), mask).patches, reference)


def test_what_is_shown_keeps_its_place() -> None:
    """With everything shown the first view's tokens are the encoder's own."""
    network = small_network(SMALL)
    completion = CrossViewCompletion(network).eval()
    nothing = torch.zeros(1, 12, dtype=torch.bool)
    first, second = images(0, 1), images(1, 1)
    with torch.inference_mode():
        x = network.decoder_embed(network.encode(first).values)
        y = network.decoder_embed(network.encode(second).values)
        turn = network.decoder_rotation((3, 4), x.device)
        for block in network.dec_blocks:
            x = block(x, y, turn, turn)
        expected = completion.prediction_head(network.dec_norm(x))
        torch.testing.assert_close(completion(first, second, nothing).patches, expected)


def test_patches_are_channel_major_and_row_by_row() -> None:
    picture = torch.arange(3 * 4 * 6, dtype=torch.float32).view(1, 3, 4, 6)
    patches = patches_of(picture, 2)
    assert patches.shape == (1, 6, 12)
    assert patches[0, 4].tolist() == [picture[0, c, 2 + i, 2 + j] for c in range(3) for i in range(2) for j in range(2)]


def test_the_loss_is_of_hidden_patches_normalised_each() -> None:
    first, mask = images(0), hidden()
    target = patches_of(first, 16)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    completion = CrossViewCompletion(small_network(SMALL))
    out = completion(first, images(1), mask)
    right = type(out)(torch.where(mask.unsqueeze(-1), target, 1e3), mask)
    assert float(completion_loss(right, first, 16)) < 1e-9
    assert float(completion_loss(type(out)(target + 2.0, mask), first, 16)) == pytest.approx(4.0, rel=1e-4)


def test_it_learns_and_its_network_loads_as_any_other(tmp_path) -> None:
    torch.manual_seed(0)
    completion = CrossViewCompletion(small_network(SMALL))
    optimiser = torch.optim.AdamW(completion.parameters(), 2e-3)
    first, second, mask = images(0, 4), images(0, 4).flip(0), hidden(batch=4)
    losses = []
    for _ in range(30):
        loss = completion_loss(completion(first, second, mask), first, 16)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert float(completion.network.mask_token.abs().sum()) > 0
    save_network(completion.network, tmp_path / "pretrained.safetensors")
    assert load_network(tmp_path / "pretrained.safetensors").config == SMALL


def test_masks_that_do_not_fit_are_named() -> None:
    completion = CrossViewCompletion(small_network(SMALL))
    with pytest.raises(NetworkError, match=r"\(2, 11\) .* give bool of \(2, 12\)"):
        completion(images(0), images(1), hidden()[:, :11])
    uneven = hidden()
    uneven[0] = False
    with pytest.raises(NetworkError, match="show as many of each"):
        completion(images(0), images(1), uneven)
