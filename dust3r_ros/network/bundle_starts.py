"""Where else the adjustment of a pair may begin, and which end was wanted: its sum of squares has several minima, each step goes down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dust3r_ros.network.two_view_bundle import LAST_DOUBT, SAME_CAMERA, TwoCameras
from dust3r_ros.network.two_view_reprojection import MatchedView, PairState


def reversed_motion(cameras: TwoCameras, one: MatchedView, two: MatchedView) -> PairState:
    """The same turn with the motion the other way, and depths as a picture alone gives them.

    Of little depth, or in a narrow field of view, a scene and its relief turned inside out look almost alike (Belhumeur et al., IJCV 1999).
    """
    state = cameras.state()
    return replace(state, translation=-state.translation, log_depth_1=one.log_depth, log_depth_2=two.log_depth)


@torch.no_grad()
def best_of(candidates: Sequence[TwoCameras], one: MatchedView, two: MatchedView, same_camera: Tensor, scale_weight: float) -> TwoCameras:
    """Of each pair the candidate that fits best; of those that fit alike the first. The other arguments as those of `adjusted`."""
    misfits = [misfit(cameras, one, two, same_camera, scale_weight) for cameras in candidates]
    which = torch.stack([values.nan_to_num(torch.inf) for values in misfits]).argmin(0)
    pair = torch.arange(len(which), device=which.device)
    return TwoCameras(**{name: torch.stack([getattr(each, name) for each in candidates])[which, pair] for name in vars(candidates[0])})


def misfit(cameras: TwoCameras, one: MatchedView, two: MatchedView, same_camera: Tensor, scale_weight: float) -> Tensor:
    """[B] what the adjustment makes small, twice the negative logarithm of how likely matches and priors are (but for a constant)."""
    scale = _mean(cameras.log_depth_2 - two.log_depth, two.depth_weight)
    depths = _of_depths(cameras.log_depth_1 - one.log_depth, one) + _of_depths(cameras.log_depth_2 - two.log_depth - scale[:, None], two)
    apart = cameras.log_focal_1 - cameras.log_focal_2
    focals = one.focal_weight * (cameras.log_focal_1 - one.log_focal) ** 2 + two.focal_weight * (cameras.log_focal_2 - two.log_focal) ** 2
    alike = same_camera * apart**2 / (1 + (apart / SAME_CAMERA) ** 2)
    matches = _of_matches(cameras.missed_1, one) + _of_matches(cameras.missed_2, two)
    return matches + depths + focals + alike + scale_weight * scale**2


def _of_matches(missed: Tensor, view: MatchedView) -> Tensor:
    """Cauchy's loss."""
    far = missed.square().sum(-1) * view.weight / LAST_DOUBT**2
    return LAST_DOUBT**2 * torch.log1p(far).sum(1)


def _of_depths(off: Tensor, view: MatchedView) -> Tensor:
    return (view.depth_weight * off.square()).sum(1)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (weight * values).sum(1) / weight.sum(1).clamp_min(1e-6)
