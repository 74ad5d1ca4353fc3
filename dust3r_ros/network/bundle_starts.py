"""Which of two adjustments of a pair is the one that was wanted: the sum of squares has several minima, and each step only goes down."""

from __future__ import annotations

import torch
from torch import Tensor

from dust3r_ros.network.two_view_bundle import LAST_DOUBT, SAME_CAMERA, TwoCameras
from dust3r_ros.network.two_view_reprojection import MatchedView


@torch.no_grad()
def better(
    cameras: TwoCameras, others: TwoCameras, one: MatchedView, two: MatchedView, same_camera: Tensor, scale_weight: float
) -> TwoCameras:
    """Of each pair the one of both that fits better: `cameras` where they fit alike. The other arguments as those of `adjusted`."""
    given = (one, two, same_camera, scale_weight)
    is_better = misfit(others, *given).nan_to_num(torch.inf) < misfit(cameras, *given).nan_to_num(torch.inf)

    def chosen(name: str, own: Tensor) -> Tensor:
        return torch.where(is_better.view(-1, *([1] * (own.ndim - 1))), getattr(others, name), own)

    return TwoCameras(**{name: chosen(name, own) for name, own in vars(cameras).items()})


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
