"""Pairs of views with matches, of scenes of random depths whose cameras are known, and how far turns and directions are apart."""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.network import two_view_bundle
from dust3r_ros.network.two_view_bundle import TwoCameras
from dust3r_ros.network.two_view_reprojection import MatchedView

PAIRS, CELLS = 6, 140
SAME = torch.tensor(400.0)


def truth_of(motion: float = 0.25, turn: float = 0.15, focals: tuple[float, float] = (70.0, 70.0), seed: int = 0) -> TwoCameras:
    """Scenes of random depths about 1 in front of two cameras that look about the same way."""
    generator = torch.Generator().manual_seed(seed)
    depths = [(0.3 * torch.randn(PAIRS, CELLS, generator=generator)) for _ in range(2)]
    rotation = two_view_bundle._rotation(turn * torch.randn(PAIRS, 3, generator=generator))
    translation = motion * torch.nn.functional.normalize(torch.randn(PAIRS, 3, generator=generator), dim=-1)
    log_focals = [torch.full((PAIRS,), focal).log() for focal in focals]
    nothing = torch.zeros(PAIRS, CELLS)
    missed = (nothing[..., None], nothing[..., None])
    return TwoCameras(rotation, translation, *log_focals, *depths, nothing, nothing, *missed, *(4 * [nothing[:, 0]]), nothing, nothing)


def places_of(seed: int = 1) -> Tensor:
    return (torch.rand(PAIRS, CELLS, 2, generator=torch.Generator().manual_seed(seed)) - 0.5) * torch.tensor([112.0, 80.0])


def view_of(truth: TwoCameras, seed: int, noise: float = 0.0) -> MatchedView:
    """View 1 of `truth` with true matches; it thinks that all depths are 1 and both focal lengths 60 pixels."""
    places = places_of(seed)
    focal_1, focal_2 = truth.log_focal_1.exp()[:, None, None], truth.log_focal_2.exp()[:, None, None]
    points = torch.cat([places / focal_1, torch.ones(PAIRS, CELLS, 1)], dim=-1) * truth.log_depth_1.exp()[..., None]
    moved = (points - truth.translation[:, None]) @ truth.rotation
    found = focal_2 * moved[..., :2] / moved[..., 2:]
    found = found + noise * torch.randn(found.shape, generator=torch.Generator().manual_seed(seed + 10))
    one, prior = torch.ones(PAIRS, CELLS), torch.full((PAIRS,), 60.0).log()
    known = 10 * one * (moved[..., 2] > 0.2)
    return MatchedView(
        places, found, known, 0 * one, 0.1 * one, prior, torch.full((PAIRS,), 6.0), torch.zeros(PAIRS, 2), torch.zeros(PAIRS).bool()
    )


def views_of(truth: TwoCameras, noise: float = 0.0) -> tuple[MatchedView, MatchedView]:
    return view_of(truth, 1, noise), view_of(truth.swapped(), 2, noise)


def degrees(one: Tensor, two: Tensor) -> Tensor:
    cosine = ((one.transpose(1, 2) @ two).diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    return torch.rad2deg(cosine.clamp(-1, 1).arccos())


def directions(one: Tensor, two: Tensor) -> Tensor:
    return torch.rad2deg(torch.nn.functional.cosine_similarity(one, two, dim=-1).clamp(-1, 1).arccos())
