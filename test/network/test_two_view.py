"""The two-view network from first principles, at sizes that take no time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dust3r_ros.kernels.twins import rotate
from dust3r_ros.network import PUBLISHED, ImageTokens, NetworkConfig, NetworkError, TwoViewNetwork, blocks
from dust3r_ros.network.blocks import attention, rope_2d
from dust3r_ros.network.heads import confidence_of, points_of, unpatched

SMALL = NetworkConfig(
    encoder_width=32, encoder_depth=2, encoder_heads=2, decoder_width=24, decoder_depth=4, decoder_heads=2, head="linear", image_size=64
)
HEADS = {
    "linear": SMALL,
    "dpt": replace(SMALL, head="dpt"),
    "catmlp+dpt": replace(SMALL, head="catmlp+dpt", descriptor_width=6),
    "patch8": replace(SMALL, patch_size=8),
}


@pytest.fixture(params=HEADS, scope="module")
def network(request: pytest.FixtureRequest) -> TwoViewNetwork:
    torch.manual_seed(0)
    return TwoViewNetwork.from_config(HEADS[request.param]).eval()


def images(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 32), (80, 112), (16, 16)])
def test_every_pixel_gets_a_point_and_a_confidence(network: TwoViewNetwork, height: int, width: int) -> None:
    out = network(images(2, height, width), images(2, height, width, 1))
    for points, confidence in ((out.points_1, out.confidence_1), (out.points_2, out.confidence_2)):
        assert points.shape == (2, height, width, 3)
        assert confidence.shape == (2, height, width)
        assert points.dtype == confidence.dtype == torch.float32
        assert bool(torch.isfinite(points).all())
        assert bool((confidence > 1).all())
    if network.config.descriptor_width:
        assert out.descriptors_1 is not None
        assert out.descriptor_confidence_2 is not None
        torch.testing.assert_close(out.descriptors_1.norm(dim=-1), torch.ones(2, height, width))
        assert bool((out.descriptor_confidence_2 > 0).all())
    else:
        assert out.descriptors_1 is None


@torch.inference_mode()
def test_a_batch_is_its_images_one_by_one_encoded_once(network: TwoViewNetwork) -> None:
    first, second = images(3, 32, 48), images(3, 32, 48, 1)
    together = network(first, second)
    for k in range(3):
        alone = network.decode(network.encode(first[k : k + 1]), network.encode(second[k : k + 1]))
        torch.testing.assert_close(alone.points_1[0], together.points_1[k], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.confidence_2[0], together.confidence_2[k], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_views_of_different_size_keep_their_own(network: TwoViewNetwork) -> None:
    out = network(images(1, 32, 48), images(1, 64, 32, 1))
    assert out.points_1.shape == (1, 32, 48, 3)
    assert out.points_2.shape == (1, 64, 32, 3)


@torch.inference_mode()
def test_the_second_view_matters_to_both(network: TwoViewNetwork) -> None:
    tokens = [network.encode(images(1, 32, 48, seed)) for seed in range(3)]
    one, other = network.decode(tokens[0], tokens[1]), network.decode(tokens[0], tokens[2])
    assert not torch.allclose(one.points_1, other.points_1)
    assert not torch.allclose(one.points_2, other.points_2)


@torch.inference_mode()
def test_half_precision_inside_leaves_points_in_float32(network: TwoViewNetwork) -> None:
    first, second = images(1, 32, 48), images(1, 32, 48, 1)
    exact = network(first, second)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(first, second)
    assert rough.points_1.dtype == torch.float32
    assert float((rough.points_1 - exact.points_1).norm() / exact.points_1.norm()) < 0.05


def test_gradients_reach_every_weight_but_the_mask_token(network: TwoViewNetwork) -> None:
    out = network(images(1, 32, 48), images(1, 48, 32, 1))
    loss = sum(value.sum() for value in vars(out).values() if value is not None)
    loss.backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    network.zero_grad(set_to_none=True)
    # The coarsest fusion has no finer path to add: its first unit is there, and unused.
    assert {name for name in without if "refinenet4.resConfUnit1" not in name} == {"mask_token"}


def test_attention_sees_only_how_far_apart_tokens_are() -> None:
    """The rotated dot product depends on the difference of positions alone, in rows and in columns."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator, dtype=torch.float64).float().unbind(0)
    cosine, sine = rope_2d(6, 7, 16, 100.0, torch.device("cpu"))
    table = (rotate(q.expand(1, 1, 42, 16), cosine, sine) @ rotate(k.expand(1, 1, 42, 16), cosine, sine).transpose(-1, -2)).view(6, 7, 6, 7)
    torch.testing.assert_close(table[1, 2, 3, 5], table[2, 1, 4, 4], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(table[5, 6, 2, 3], table[3, 3, 0, 0], atol=1e-4, rtol=1e-4)
    assert abs(float(table[0, 0, 0, 1] - table[0, 0, 1, 0])) > 1e-3  # rows and columns differ
    assert abs(float(table[0, 0, 0, 0] - (q * k).sum())) < 1e-5


@pytest.mark.parametrize("tiles", [False, True])
def test_attention_is_one_whatever_way_it_is_computed(tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU in bfloat16: with a gradient as plain products, without one head by head or fused, all as float32's fused one."""
    monkeypatch.setattr(blocks, "_multiplies_tiles", lambda: tiles)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, count, 16, dtype=torch.bfloat16) for count in (7, 9, 9))
    exact = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    learned = attention(q.requires_grad_(), k, v)
    with torch.no_grad():
        used = attention(q, k, v)
    assert torch.allclose(learned.float(), exact, atol=0.03)
    assert torch.allclose(used.float(), exact, atol=0.03)


def test_a_patchs_values_are_its_pixels_channel_by_channel() -> None:
    values = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(1, 6, 16)  # 2x3 patches of 2x2 pixels, 4 channels
    picture = unpatched(values, (2, 3), 2)
    for row, column, channel in ((0, 0, 0), (1, 2, 1), (3, 5, 3), (2, 1, 2)):
        patch = (row // 2) * 3 + column // 2
        assert picture[0, channel, row, column] == values[0, patch, 4 * channel + 2 * (row % 2) + column % 2]


def test_points_and_confidence_by_hand() -> None:
    raw = torch.tensor([0.0, 3.0, 4.0]).view(1, 3, 1, 1)
    length = torch.expm1(torch.tensor(5.0))
    torch.testing.assert_close(points_of(raw)[0, 0, 0], torch.tensor([0.0, 0.6, 0.8]) * length)
    torch.testing.assert_close(points_of(torch.zeros(1, 3, 1, 1)), torch.zeros(1, 1, 1, 3))
    assert float(confidence_of(torch.zeros(1, 1, 1))) == 2.0


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    with torch.device("meta"):
        network = TwoViewNetwork.from_config(name)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    expected = {"dust3r_224_linear": 532, "dust3r_512_linear": 532, "dust3r_512_dpt": 571, "mast3r_512_catmlpdpt": 689}
    assert round(millions) == expected[name]


def test_what_does_not_fit_is_refused_by_name() -> None:
    network = TwoViewNetwork.from_config(SMALL)
    for shape in ((1, 3, 30, 32), (3, 32, 32), (1, 4, 32, 32), (0, 3, 32, 32)):
        with pytest.raises(NetworkError, match="multiples of 16"):
            network.encode(torch.zeros(shape))
    tokens = network.encode(images(2, 32, 32))
    with pytest.raises(NetworkError, match="2 images paired with 1"):
        network.decode(tokens, ImageTokens(tokens.values[:1], tokens.grid))
    with pytest.raises(NetworkError, match="'dust3r'"):
        TwoViewNetwork.from_config("dust3r")
    for wrong in ({"encoder_width": 30}, {"head": "dpt", "descriptor_width": 24}, {"head": "dpt", "patch_size": 8}, {"head": "mlp"}):
        with pytest.raises(NetworkError):
            replace(SMALL, **wrong)
