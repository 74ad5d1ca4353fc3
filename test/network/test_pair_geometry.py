"""What a pair's matches say: the same whichever view comes first, and said to the decoders of both."""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.network import NetworkConfig
from dust3r_ros.network.pair_geometry import GeometryEstimation, PairGeometry

CONFIG = NetworkConfig(
    encoder_width=64, encoder_heads=2, decoder_width=32, decoder_heads=2, patch_size=8, head="camera", match_width=16, image_size=64
)
GRIDS = ((6, 8), (4, 5))
LENSES = (torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0], [30.0, 1.0, -0.5]]))  # the last one was measured


def _estimation() -> GeometryEstimation:
    torch.manual_seed(0)
    return GeometryEstimation(CONFIG)


def _inputs(batch: int = 2) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Tokens and cells of views of two sizes."""
    generator = torch.Generator().manual_seed(0)
    encoded = [torch.randn(batch, rows * columns, 64, generator=generator) for rows, columns in GRIDS]
    cells = []
    estimation = _estimation().requires_grad_(False)
    for tokens, (rows, columns) in zip(encoded, GRIDS, strict=True):
        images = torch.rand(batch, 3, 8 * rows, 8 * columns, generator=generator)
        cells.append(estimation.matching.cells(images, images, tokens))
    return (encoded[0], encoded[1]), (cells[0], cells[1])


def _close(one: PairGeometry, two: PairGeometry) -> None:
    for part in ("cameras", "priors_1", "priors_2"):
        for name, value in vars(getattr(one, part)).items():
            torch.testing.assert_close(value, getattr(getattr(two, part), name), atol=2e-2, rtol=2e-2, msg=f"{part}.{name}")


def test_views_may_differ_in_size_and_decoders_are_told_of_their_own() -> None:
    estimation = _estimation().requires_grad_(False)
    geometry = estimation(*_inputs(), GRIDS, LENSES)
    assert geometry.cameras.log_depth_1.shape == (2, 4 * 48)
    assert geometry.cameras.log_depth_2.shape == (2, 4 * 20)
    first, second = estimation.told(geometry, GRIDS)
    assert first.shape == (2, 48, 32)
    assert second.shape == (2, 20, 32)
    swapped = estimation.told(geometry.swapped(), GRIDS[::-1])
    torch.testing.assert_close(swapped[1], first)
    torch.testing.assert_close(swapped[0], second)


def test_both_orders_in_one_batch_are_each_alone() -> None:
    estimation = _estimation().requires_grad_(False)
    (one, two), (cells_1, cells_2) = _inputs()
    part = (one[:, :20], two), (cells_1[:, :20], cells_2)  # of one size, as they have to be in one batch
    grids = (GRIDS[1], GRIDS[1])
    geometry = estimation(*part, grids, LENSES)
    both = geometry.followed_by(geometry.swapped())
    for name, value in vars(both.cameras).items():
        torch.testing.assert_close(value[:2], getattr(geometry.cameras, name))
        torch.testing.assert_close(value[2:], getattr(geometry.swapped().cameras, name))
    told = estimation.told(both, grids)
    torch.testing.assert_close(told[0][2:], estimation.told(geometry, grids)[1])
    _close(geometry.swapped().swapped(), geometry)
    mirrored = geometry.mirrored()
    for name, value in vars(mirrored.priors_1).items():
        torch.testing.assert_close(value, torch.stack([getattr(both.priors_1, name)[k] for k in (0, 2, 1, 3)]))
    torch.testing.assert_close(mirrored.cameras.rotation[1], geometry.cameras.rotation[0].T)


def test_training_makes_the_same_as_looking() -> None:
    """The steps are as many with a gradient as without."""
    estimation = _estimation()
    inputs = _inputs()
    trained = estimation(*inputs, GRIDS, LENSES)
    with torch.no_grad():
        _close(estimation(*inputs, GRIDS, LENSES), trained)
    assert trained.cameras.log_depth_1.requires_grad


def test_gradients_reach_every_weight() -> None:
    estimation = _estimation()
    torch.nn.init.normal_(estimation.matching.refinement.out.weight, std=0.1)
    (encoded, _), grids = _inputs(), GRIDS
    encoded = tuple(tokens.requires_grad_() for tokens in encoded)
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(2, 3, 8 * rows, 8 * columns, generator=generator) for rows, columns in grids]
    cells = tuple(estimation.matching.cells(image, image, tokens) for image, tokens in zip(images, encoded, strict=True))
    geometry = estimation(encoded, cells, grids, (LENSES[0], LENSES[0]))
    told = estimation.told(geometry, grids)
    one, two = (estimation.matching.unpacked(values, grid) for values, grid in zip(cells, grids, strict=True))
    loss = sum(values.square().mean() for values in told) + estimation.matching.likeness(one, two).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in estimation.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.abs().sum() > 0), name
