"""The small network of our own: its size, and its head's width through a file of weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.networks import DPT, SMALL, small_network
from torch.nn import functional as F  # noqa: N812

from dust3r_ros.network import OWN, PUBLISHED, NetworkError, TwoViewNetwork, load_network, named, save_network
from dust3r_ros.network.config_words import words_of_config


def test_nano_fits_the_package() -> None:
    with torch.device("meta"):
        network = TwoViewNetwork.from_config("dust3r_nano")
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) < 40e6  # bytes in float16


def test_narrow_head_survives_a_file(tmp_path: Path) -> None:
    network = small_network(replace(DPT, head_width=32))
    save_network(network, tmp_path / "narrow.safetensors")
    again = load_network(tmp_path / "narrow.safetensors")
    assert again.config == network.config
    image = torch.rand(1, 3, 48, 64) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(again(image, image).points_2, network(image, image).points_2)


def test_published_files_know_nothing_of_it() -> None:
    assert all("head_width" not in words_of_config(config) for config in PUBLISHED.values())
    assert all("coordinates" not in words_of_config(config) for config in PUBLISHED.values())
    assert words_of_config(replace(DPT, head_width=64))["head_width"] == 64
    assert words_of_config(OWN["dust3r_nano"])["coordinates"] is True


def test_coordinates_survive_a_file_and_fit_every_size(tmp_path: Path) -> None:
    """Told where they lie, equal patches in other places get other points; with rotary positions alone they cannot."""
    network = small_network(replace(SMALL, coordinates=True, patch_size=8))
    save_network(network, tmp_path / "placed.safetensors")
    again = load_network(tmp_path / "placed.safetensors")
    assert again.config == network.config
    grey = torch.zeros(1, 3, 48, 64)
    without = small_network(replace(SMALL, patch_size=8))
    with torch.inference_mode():
        assert torch.equal(again(grey, grey).points_2, network(grey, grey).points_2)
        left, right = (network(grey, grey).points_1[:, :8, at] for at in (slice(0, 8), slice(56, 64)))
        assert not torch.allclose(left, right, atol=1e-3)
        left, right = (without(grey, grey).points_1[:, :8, at] for at in (slice(0, 8), slice(56, 64)))
        assert torch.allclose(left, right, atol=1e-5)
        assert network.place_embed is not None
        small, large = (network.place_embed((rows, 2 * rows), grey.device).view(rows, 2 * rows, -1) for rows in (6, 12))
    middle = large.view(6, 2, 12, 2, -1).mean((1, 3))  # four patches of a picture twice as large lie around one of the small one
    assert (middle - small).norm() < 0.2 * small.norm()


def test_names_and_widths_are_checked() -> None:
    assert named("dust3r_512_dpt") == PUBLISHED["dust3r_512_dpt"]
    with pytest.raises(NetworkError, match="no published network is called 'tiny'"):
        named("tiny")
    with pytest.raises(NetworkError, match="width 20: give a multiple of 8"):
        replace(DPT, head_width=20)


@pytest.mark.parametrize("head", ["linear", "dpt"])
def test_points_and_confidence_keep_float32_under_autocast(head: str) -> None:
    """Their last layer is not cut to bfloat16's three digits: raw values differ from those rounded."""
    network = small_network(replace(DPT, head=head))  # type: ignore[arg-type]
    image = torch.rand(1, 3, 48, 64) * 2 - 1
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        confidence = network(image, image).confidence_1
    raw = (confidence - 1).log()
    assert not torch.allclose(raw, raw.bfloat16().float(), rtol=1e-5, atol=0)


def test_what_a_picture_says_alone_is_what_its_pairs_begin_with() -> None:
    """A network that halves pictures for all but details takes small ones as they are: depths and focal lengths in the same pixels."""
    network = small_network(replace(SMALL, patch_size=8, head="camera", match_width=8, detail_width=8)).float()
    assert network.config.shrink == 2
    images = torch.rand(2, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        tokens = network.encode(images)
        geometry = network.geometry_of(tokens, tokens)
        alone = network.alone(F.avg_pool2d(images, 2))
    assert geometry is not None
    for name in ("log_depth", "log_focal", "depth_weight", "focal_weight", "places"):
        torch.testing.assert_close(getattr(geometry.priors_1, name), getattr(alone, name).expand_as(getattr(geometry.priors_1, name)))
