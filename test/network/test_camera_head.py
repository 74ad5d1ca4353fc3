"""Pointmaps of a depth map and a camera: points lie on their pixels' rays, and the second view is moved as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dust3r_ros.geometry import Camera
from dust3r_ros.network import ImageTokens, NetworkConfig, TwoViewNetwork, TwoViewOutput, load_network, named, save_network
from dust3r_ros.network.camera_head import RAW_CHANNELS, CameraHead, rotation_of
from dust3r_ros.network.config import NetworkError
from dust3r_ros.network.pair_geometry import PairGeometry
from dust3r_ros.training.initialisation import fresh_network

SMALL = NetworkConfig(
    encoder_width=32, encoder_depth=1, encoder_heads=2, decoder_width=32, decoder_depth=2, decoder_heads=2, patch_size=8, head="camera",
    stem=True, coordinates=True, match_width=8, image_size=64,
)  # fmt: skip
HALVED = replace(SMALL, detail_width=8)  # its cells are 8 pixels wide
SIZES = pytest.mark.parametrize("config", [SMALL, HALVED], ids=["one size", "details in twice the size"])


def _lively(config: NetworkConfig = SMALL) -> TwoViewNetwork:
    """Random weights whose heads say something else of every image."""
    torch.manual_seed(0)
    network = TwoViewNetwork(config).requires_grad_(False).eval()
    for head in (network.downstream_head1, network.downstream_head2):
        assert isinstance(head, CameraHead)
        head.proj.weight.mul_(3)
        head.camera.fc2.weight.mul_(3)
    assert network.geometry is not None
    for refinement in (network.geometry.matching.refinement, network.geometry.matching.details):
        if refinement is not None:
            refinement.out.weight.normal_(std=0.3)
    return network


def _output(network: TwoViewNetwork) -> TwoViewOutput:
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return network(images, images.flip(0))


def _mirror_images(network: TwoViewNetwork) -> tuple[ImageTokens, ImageTokens, PairGeometry]:
    images = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    one, two = network.encode(images), network.encode(images.flip(3))
    geometry = network.geometry_of(one, two)
    assert geometry is not None
    return one, two, geometry


@SIZES
def test_points_of_view_1_are_seen_where_their_pixels_are(config: NetworkConfig) -> None:
    points = _output(_lively(config)).points_1
    depth, pixels = points[..., 2:], points[..., :2] / points[..., 2:]
    assert depth.min() > 0
    assert depth.std() > 0.01
    for slope in pixels:
        focal = 1 / (slope[0, 1, 0] - slope[0, 0, 0]).item()
        camera = Camera(64, 48, focal, focal, 31.5, 23.5)
        seen = torch.from_numpy(camera.project(torch.cat([slope, torch.ones_like(slope[..., :1])], -1).double().numpy()))
        v, u = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
        torch.testing.assert_close(seen.float(), torch.stack([u, v], -1), atol=1e-2, rtol=0)


@SIZES
def test_lens_that_was_measured_is_the_lens(config: NetworkConfig) -> None:
    """Of either view, whatever the matches say, in both orders of a pair too; what nobody measured is still found."""
    network = _lively(config)
    images = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    lens = torch.tensor([[70.0, 2.0, -1.5], [0.0, 0.0, 0.0], [50.0, -3.0, 1.0]])
    one, two = network.encode(images, lens), network.encode(images.flip(0), lens.flip(0))
    geometry = network.geometry_of(one, two)
    assert geometry is not None
    levels = network.decode_levels(one, two, geometry)
    output = network.output(levels, one, two, True, geometry)
    for side, (view, back) in enumerate(((lens, lens.flip(0)), (lens.flip(0), lens))):
        head = (network.downstream_head1, network.downstream_head2)[side]
        assert isinstance(head, CameraHead)
        torch.testing.assert_close(head.log_focal(levels[side], geometry)[::2].exp(), view[::2, 0])
        prior = (geometry.priors_1, geometry.priors_2)[side]
        torch.testing.assert_close(prior.principal * config.shrink, view[:, 1:])
        middle = (geometry.looks_1, geometry.looks_2)[side][-1].found
        torch.testing.assert_close(prior.found, middle - back[:, None, 1:] / config.shrink)
    focals = config.shrink * torch.stack([geometry.cameras.log_focal_1, geometry.cameras.log_focal_2]).exp()[:, ::2]
    torch.testing.assert_close(focals, torch.stack([lens[::2, 0], lens.flip(0)[::2, 0]]), rtol=0.02, atol=0)
    twice = [torch.stack([view.values[0], back.values[0]]) for view, back in ((one, two), (two, one))]
    lenses = [torch.stack([view, back]) for view, back in ((lens[0], lens[2]), (lens[2], lens[0]))]
    both = network.decode(*(ImageTokens(values, one.grid, lens=of) for values, of in zip(twice, lenses, strict=True)), mirrored=True)
    v, u = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    for points, (focal, across, down) in ((output.points_1[0], lens[0]), (both.points_1[0], lens[0]), (both.points_1[1], lens[2])):
        rays = torch.stack([u - 31.5 - across, v - 23.5 - down], -1) / focal
        torch.testing.assert_close(points[..., :2] / points[..., 2:], rays, atol=1e-4, rtol=1e-4)


@SIZES
@pytest.mark.parametrize("lowered", [False, True], ids=["float32", "as trained in bfloat16"])
def test_view_2_is_moved_as_one(lowered: bool, config: NetworkConfig) -> None:
    """What the second head says of its camera takes its points back to the rays of one focal length; points are never rounded."""
    network = _lively(config)
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert isinstance(network.downstream_head2, CameraHead)
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
        one, two = network.encode(images), network.encode(images.flip(0))
        geometry = network.geometry_of(one, two)
        assert geometry is not None
        levels = network.decode_levels(one, two, geometry)
        rotation, translation = network.downstream_head2.pose(levels[1], geometry)
        log_focal = network.downstream_head2.log_focal(levels[1], geometry)
        points = network.output(levels, one, two, geometry=geometry).points_2
    assert translation.norm() > 0.01
    local = torch.einsum("bji,bhwj->bhwi", rotation, points - translation[:, None, None])
    slopes = local[..., 0] / local[..., 2]
    steps = (-log_focal).exp()[:, None, None]
    torch.testing.assert_close(slopes.diff(dim=2), steps.expand(-1, 48, 63), atol=1e-3, rtol=0)
    torch.testing.assert_close(slopes.mean((1, 2)), torch.zeros(2), atol=1e-4, rtol=0)


@SIZES
def test_motion_is_that_which_moved_view_2(config: NetworkConfig) -> None:
    """Moved back by it, each of view 2's points lies on its own pixel's ray."""
    network = _lively(config)
    output = _output(network)
    assert output.motion is not None
    assert tuple(output.parts()) == network.output_names(descriptors=True)
    rotation, translation, sigmas = output.motion[:, :9].unflatten(1, (3, 3)), output.motion[:, 9:12], output.motion[:, 12:]
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(2, 3, 3), atol=1e-5, rtol=0)
    assert sigmas.min() > 0
    own = (output.points_2 - translation[:, None, None]) @ rotation[:, None]
    slope = own[..., :2] / own[..., 2:]
    for axis, step in ((0, slope[:, :, 1:] - slope[:, :, :-1]), (1, slope[:, 1:] - slope[:, :-1])):  # evenly apart, as pixels are
        focal = 1 / step[..., axis]
        torch.testing.assert_close(focal, focal.mean((1, 2), keepdim=True).expand_as(focal), rtol=2e-3, atol=0)


def test_rotations_are_rotations_and_begin_with_none() -> None:
    torch.testing.assert_close(rotation_of(torch.zeros(1, 6))[0], torch.eye(3))
    found = rotation_of(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(found @ found.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(50), atol=1e-5, rtol=0)


def test_a_fresh_one_sees_a_wall_where_matches_say_little() -> None:
    network = fresh_network(named("dust3r_nano"), 0).requires_grad_(False)
    assert network.geometry is not None
    network.geometry.weight.fill_(-6.0)
    output = _output(network)
    points = output.points_1
    assert points[..., 2].std() / points[..., 2].mean() < 0.5
    assert (points[..., 2] > 0).all()


def test_depth_is_between_what_tokens_say_and_what_matches_say() -> None:
    """As far as the last convolution trusts these: at its two ends it is the one or, at the scale of these, the other."""
    network = _lively()
    one, two, geometry = _mirror_images(network)
    head = network.downstream_head1
    assert isinstance(head, CameraHead)
    assert head.last.bias is not None
    head.last.weight.zero_()
    head.last.bias.zero_()
    levels = network.decode_levels(one, two, geometry)
    known = geometry.cameras.log_depth_1.view(1, 1, 12, 16)
    wanted = torch.nn.functional.interpolate(known, size=(48, 64), mode="bilinear")[:, 0]
    depths = []
    for trust in (-30.0, 30.0):
        head.last.bias.view(RAW_CHANNELS, -1)[2] = trust
        depths.append(network.output(levels, one, two, geometry=geometry).points_1[..., 2].log())
    torch.testing.assert_close(depths[1], wanted, atol=1e-4, rtol=0)
    patches = head.proj(levels[0][-1]).unflatten(2, (2, 8, 8))[0, 0, 0]
    torch.testing.assert_close(depths[0][0, :8, :8] - depths[0][0, 0, 0], patches - patches[0, 0], atol=1e-4, rtol=0)


def test_matches_count_by_what_they_leave_open_and_give_the_scale() -> None:
    """A plane that matches know well at the left, and the tokens another one: at the right that comes at the scale of the first."""
    network = _lively()
    head = network.downstream_head1
    assert isinstance(head, CameraHead)
    assert head.last.bias is not None
    assert head.proj.bias is not None
    for layer in (head.last, head.proj):
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.zero_()
    head.proj.bias.view(2, -1)[0] = 1.3  # log depth of all pixels
    one, two, geometry = _mirror_images(network)
    column = torch.arange(16.0).expand(12, 16).reshape(1, -1)
    log_sigma = torch.where(column < 8, 0.005, 5.0).log()
    log_depth = torch.where(column < 8, 0.4, -2.0)
    cameras = replace(geometry.cameras, log_depth_1=log_depth, log_sigma_1=log_sigma)
    output = network.output(network.decode_levels(one, two, geometry), one, two, geometry=replace(geometry, cameras=cameras))
    depth, sure = output.points_1[0, ..., 2], output.confidence_1[0] - 1
    torch.testing.assert_close(sure[:, 36:], torch.ones(48, 28), atol=0.01, rtol=0)  # exp(0): what one picture says alone
    torch.testing.assert_close(sure[:, :28], torch.full((48, 28), (0.26 / 0.015) ** 0.5), atol=0.05, rtol=0)
    torch.testing.assert_close(depth.log()[:, :28], torch.full((48, 28), 0.4), atol=0.02, rtol=0)
    torch.testing.assert_close(depth.log()[:, 36:], torch.full((48, 28), 0.4), atol=0.06, rtol=0)  # not -2, and not 1.3


def test_cameras_are_mended_in_units_of_what_is_left_open() -> None:
    network = _lively()
    one, two, geometry = _mirror_images(network)
    levels = network.decode_levels(one, two, geometry)
    head = network.downstream_head2
    assert isinstance(head, CameraHead)
    moved = []
    for sigma in (0.0, 0.005, 0.2, 0.4, 1e6):
        open_ = {name: torch.full((1,), sigma) for name in ("sigma_turn", "sigma_move", "sigma_focal_1", "sigma_focal_2")}
        given = replace(geometry, cameras=replace(geometry.cameras, **open_))
        rotation, translation = head.pose(levels[1], given)
        moved.append(((rotation - geometry.cameras.rotation).norm(), (translation - geometry.cameras.translation).norm(),
                      head.log_focal(levels[1], given) - geometry.cameras.log_focal_2))  # fmt: skip
    assert moved[0][0] < 1e-6
    assert moved[0][1] == 0
    assert moved[0][2] == 0
    for firm, once, twice, most in zip(*moved[1:], strict=True):
        assert float(twice / once) == pytest.approx(2.0, rel=0.1)
        assert float(most.abs()) < 3 * float(once.abs())
        assert float(firm.abs()) < 0.05 * float(once.abs())
    for at in (0, 1):  # what is sure to such a degree stays as the matches have it
        assert float(moved[1][at]) < 0.1 * 0.005 / 0.2 * float(moved[2][at])


def test_both_orders_in_one_batch_share_what_the_matches_say() -> None:
    network = _lively()
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    one, two = network.encode(images), network.encode(images.flip(0))
    both = network.decode(one, two, mirrored=True)
    alone = network.decode(*(ImageTokens(view.values[:1], view.grid) for view in (one, two)))
    torch.testing.assert_close(both.points_1[:1], alone.points_1, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(both.points_2[:1], alone.points_2, atol=1e-4, rtol=1e-3)
    cameras = network.geometry_of(one, two, mirrored=True)
    assert cameras is not None
    torch.testing.assert_close(cameras.cameras.rotation[1], cameras.cameras.rotation[0].T)
    torch.testing.assert_close(cameras.cameras.log_focal_2[1], cameras.cameras.log_focal_1[0])
    assert not torch.allclose(both.points_1[0], both.points_1[1], atol=1e-2)


def test_a_camera_head_without_matches_is_refused() -> None:
    with pytest.raises(NetworkError, match="match_width"):
        replace(SMALL, match_width=0)


@pytest.mark.parametrize(("part", "value"), [("detail_width", 4), ("detail_width", 12), ("patch_size", 12)])
def test_details_are_refused_where_they_cannot_be(part: str, value: int) -> None:
    with pytest.raises(NetworkError, match="multiple of 8"):
        replace(HALVED, stem=False, **{part: value})
    with pytest.raises(NetworkError, match="camera head"):
        NetworkConfig(detail_width=8)


def test_details_are_said_in_the_file(tmp_path: Path) -> None:
    network = _lively(HALVED)
    save_network(network, tmp_path / "halved.safetensors")
    again = load_network(tmp_path / "halved.safetensors")
    assert again.config == HALVED
    torch.testing.assert_close(_output(again).points_2, _output(network).points_2)


def test_details_mend_a_picture_made_larger() -> None:
    """Where nothing is mended, depth is that of the smaller picture between its pixels; what is, is told by the picture's own pixels."""
    network = _lively(HALVED)
    head = network.downstream_head1
    assert isinstance(head, CameraHead)
    assert head.enlarging is not None
    raw, detail = torch.randn(1, 3, 6, 8), torch.randn(1, 8, 6, 8)
    mended = head.enlarging(raw, detail)
    assert not torch.allclose(head.enlarging(raw, detail.flip(3)), mended, atol=1e-3)
    torch.testing.assert_close(head.enlarging(raw + 2.0, detail), mended + 2.0)  # whatever the scale
    head.start_flat(1.0)
    head.enlarging.last.weight.zero_()
    plain = torch.nn.functional.interpolate(raw, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(head.enlarging(raw, detail), plain)


def test_tracked_patches_are_said_in_the_file_and_need_matches(tmp_path: Path) -> None:
    config = replace(HALVED, tracked=True)
    network = _lively(config)
    save_network(network, tmp_path / "tracked.safetensors")
    again = load_network(tmp_path / "tracked.safetensors")
    assert again.config == config
    assert again.encode(torch.zeros(1, 3, 48, 64)).values.shape[2] == config.token_width
    torch.testing.assert_close(_output(again).points_2, _output(network).points_2)
    less = TwoViewNetwork(HALVED)
    less.load_state_dict({key: value for key, value in network.state_dict().items() if key in less.state_dict()})
    assert not torch.allclose(_output(less.eval()).points_2, _output(network).points_2, atol=1e-3)
    with pytest.raises(NetworkError, match="give match_width"):
        NetworkConfig(tracked=True)


@pytest.mark.parametrize("part", ["stem", "coordinates"])
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


@SIZES
def test_views_of_two_sizes(config: NetworkConfig) -> None:
    network = _lively(config)
    output = network(torch.rand(1, 3, 48, 64), torch.rand(1, 3, 64, 32))
    assert output.points_1.shape == (1, 48, 64, 3)
    assert output.points_2.shape == (1, 64, 32, 3)
    assert bool(torch.isfinite(output.points_2).all())
