"""Pointmaps of a depth map and a camera: points lie on their pixels' rays, and the second view is moved as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dust3r_ros.geometry import Camera
from dust3r_ros.network import NetworkConfig, TwoViewNetwork, TwoViewOutput, load_network, named, save_network
from dust3r_ros.network.camera_head import CameraHead, rays, rotation_of
from dust3r_ros.training.initialisation import fresh_network

SMALL = NetworkConfig(
    encoder_width=32, encoder_depth=1, encoder_heads=2, decoder_width=32, decoder_depth=2, decoder_heads=2, patch_size=8, head="camera",
    stem=True, coordinates=True, match_width=8, image_size=64,
)  # fmt: skip


def _lively(config: NetworkConfig = SMALL) -> TwoViewNetwork:
    """Random weights whose heads say something else of every image."""
    torch.manual_seed(0)
    network = TwoViewNetwork(config).requires_grad_(False).eval()
    for head in (network.downstream_head1, network.downstream_head2):
        assert isinstance(head, CameraHead)
        head.proj.weight.mul_(3)
        head.camera.fc2.weight.mul_(3)
    return network


def _output(network: TwoViewNetwork) -> TwoViewOutput:
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return network(images, images.flip(0))


def test_points_of_view_1_are_seen_where_their_pixels_are() -> None:
    points = _output(_lively()).points_1
    depth, pixels = points[..., 2:], points[..., :2] / points[..., 2:]
    assert depth.min() > 0
    assert depth.std() > 0.01
    for slope in pixels:
        focal = 1 / (slope[0, 1, 0] - slope[0, 0, 0]).item()
        camera = Camera(64, 48, focal, focal, 31.5, 23.5)
        seen = torch.from_numpy(camera.project(torch.cat([slope, torch.ones_like(slope[..., :1])], -1).double().numpy()))
        v, u = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
        torch.testing.assert_close(seen.float(), torch.stack([u, v], -1), atol=1e-2, rtol=0)


@pytest.mark.parametrize("lowered", [False, True], ids=["float32", "as trained in bfloat16"])
def test_view_2_is_moved_as_one(lowered: bool) -> None:
    """What the second head says of its camera takes its points back to the rays of one focal length; points are never rounded."""
    network = _lively()
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert isinstance(network.downstream_head2, CameraHead)
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
        one, two = network.encode(images), network.encode(images.flip(0))
        levels = network.decode_levels(one, two)
        rotation, translation = network.downstream_head2.pose(levels[1])
        points = network.output(levels, one, two).points_2
    assert translation.norm() > 0.01
    local = torch.einsum("bji,bhwj->bhwi", rotation, points - translation[:, None, None])
    slopes = local[..., 0] / local[..., 2]
    torch.testing.assert_close(slopes.diff(dim=2), slopes.diff(dim=2)[:, :1, :1].expand(-1, 48, 63), atol=1e-4, rtol=0)
    torch.testing.assert_close(slopes.mean((1, 2)), torch.zeros(2), atol=1e-4, rtol=0)


def test_rotations_are_rotations_and_begin_with_none() -> None:
    torch.testing.assert_close(rotation_of(torch.zeros(1, 6))[0], torch.eye(3))
    found = rotation_of(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(found @ found.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(50), atol=1e-5, rtol=0)


def test_a_fresh_one_sees_a_wall_from_two_cameras_in_one_place() -> None:
    output = _output(fresh_network(named("dust3r_pico"), 0).requires_grad_(False))
    for points in (output.points_1, output.points_2):
        assert points[..., 2].std() / points[..., 2].mean() < 0.4
    own = rays(48, 64, torch.full((2, 1), 0.87 * 64)) * output.points_2[..., 2:]
    assert (output.points_2 - own).norm(dim=-1).mean() < 0.3 * own.norm(dim=-1).mean()


@pytest.mark.parametrize("part", ["stem", "coordinates", "match_width"])
def test_each_part_is_said_in_the_file_and_changes_what_is_made(part: str, tmp_path: Path) -> None:
    network = _lively()
    save_network(network, tmp_path / "all.safetensors")
    again = load_network(tmp_path / "all.safetensors")
    assert again.config == network.config
    assert again.encode(torch.zeros(1, 3, 48, 64)).values.shape == (1, 48, SMALL.token_width)
    torch.testing.assert_close(_output(again).points_2, _output(network).points_2)
    less = TwoViewNetwork(replace(SMALL, **{part: type(getattr(SMALL, part))(0)}))
    kept = {key: value for key, value in network.state_dict().items() if key in less.state_dict()}
    assert len(kept) < len(network.state_dict())
    less.load_state_dict(kept)
    assert not torch.allclose(_output(less.eval()).points_1, _output(network).points_1, atol=1e-3)


def test_views_of_two_sizes() -> None:
    network = _lively()
    output = network(torch.rand(1, 3, 48, 64), torch.rand(1, 3, 64, 32))
    assert output.points_1.shape == (1, 48, 64, 3)
    assert output.points_2.shape == (1, 64, 32, 3)
    assert bool(torch.isfinite(output.points_2).all())
