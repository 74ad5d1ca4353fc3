"""Confidence-aware regression of pointmaps.

Wang et al., DUSt3R, CVPR 2024, equations 2 to 4; for metric truth Leroy et al., MASt3R, ECCV 2024, equation 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FARTHEST = 1e9  # coordinates and confidences beyond are cut: their squares and sums stay finite
NEAREST = 1e-8
NO_WAY = 0.01  # translations shorter than this, in units of the scene's mean distance, have no direction
LEAST_RAW, KEPT = -6.0, 0.01  # log(C - 1) below which a confidence is drawn back, and how strongly: far below, its gradient is gone


@dataclass(frozen=True, eq=False)
class PointmapTruth:
    """Both views' points in camera 1's frame, of pairs of one order. Values where not valid may be anything."""

    points_1: Tensor  # [B, H1, W1, 3]
    points_2: Tensor  # [B, H2, W2, 3]
    valid_1: Tensor  # [B, H1, W1] bool
    valid_2: Tensor  # [B, H2, W2] bool
    pose: Tensor  # [B, 4, 4] camera 2 to camera 1
    intrinsics_1: Tensor  # [B, 4] fx, fy, cx, cy in pixels
    intrinsics_2: Tensor  # [B, 4]


@dataclass(frozen=True, eq=False)
class PointmapLoss:
    """Means over the valid pixels of both views of all pairs."""

    loss: Tensor  # C l - alpha log C
    error: Tensor  # l, in units of the scene's mean distance
    confidence: Tensor  # C


def mean_distance(points_1: Tensor, points_2: Tensor, valid_1: Tensor, valid_2: Tensor) -> Tensor:
    """[B]: the mean distance from the origin of all valid points of both views (equation 3); 1 for a pair without any."""
    count = valid_1.flatten(1).sum(1) + valid_2.flatten(1).sum(1)
    total = _distances(points_1, valid_1) + _distances(points_2, valid_2)
    return torch.where(count > 0, total / count.clamp_min(1), 1.0).clamp_min(NEAREST)


def pointmap_loss(
    points: tuple[Tensor, Tensor],  # predicted, [B, H1, W1, 3] and [B, H2, W2, 3], in camera 1's frame
    confidence: tuple[Tensor, Tensor],  # predicted, [B, H1, W1] and [B, H2, W2], above 1
    truth: PointmapTruth,
    alpha: float = 0.2,
    metric: bool = False,
    from_nothing: bool = False,
) -> PointmapLoss:
    """l = || X / z - X_true / z_true ||, L = mean of C l - alpha log C over valid pixels (equations 2 to 4), in float32.

    `metric`: the prediction is not normalised by its own scale but by the truth's, z = z_true. `from_nothing`: alpha is at least the mean
    of l, and C does not end at 1. Where l is above alpha, C = 1 is the optimum: a network that starts from nothing unlearns its confidence
    before its points are any good, and with the gradient gone never learns it again.
    """
    valid = (truth.valid_1, truth.valid_2)
    true = [_clean(value, mask) for value, mask in zip((truth.points_1, truth.points_2), valid, strict=True)]
    predicted = [_clean(value, mask) for value, mask in zip(points, valid, strict=True)]
    true_scale = mean_distance(true[0], true[1], *valid)
    scale = true_scale if metric else mean_distance(predicted[0], predicted[1], *valid)
    count = (valid[0].sum() + valid[1].sum()).clamp_min(1)
    errors = [(x / _per_pair(scale) - x_true / _per_pair(true_scale)).norm(dim=-1) for x, x_true in zip(predicted, true, strict=True)]
    weight: Tensor | float = alpha
    if from_nothing:
        weight = (sum(error.detach().sum() for error in errors) / count).clamp_min(alpha)
    sums = torch.zeros(3, device=count.device)
    for error, c, mask in zip(errors, confidence, valid, strict=True):
        sure = torch.where(mask, c.float().clamp(max=FARTHEST), 1.0)  # log 1 is nothing
        loss = (sure * error - weight * sure.log()).sum()
        if from_nothing:
            loss = loss + KEPT * (_below(sure) * mask).sum()
        sums = sums + torch.stack([loss, error.sum(), (sure * mask).sum()])
    means = sums / count
    return PointmapLoss(means[0], means[1], means[2])


def pose_loss(rotation: Tensor, translation: Tensor, truth: PointmapTruth) -> Tensor:
    """Mean over pairs of how far the second camera's axes [B, 3, 3], and the direction [B, 3] that it lies in, are from the true ones.

    Both as lengths of differences, 0 to 2. Pointmaps hardly feel a translation that is small beside the depth's error. A pair whose cameras
    lie in one place, and a translation near nothing, have no direction: a small share of the scene's mean distance is where they begin to.
    """
    points = _clean(truth.points_1, truth.valid_1), _clean(truth.points_2, truth.valid_2)
    scale = mean_distance(*points, truth.valid_1, truth.valid_2)[:, None]
    axes, way = truth.pose[:, :3, :3], truth.pose[:, :3, 3] / scale
    turned = (rotation - axes).square().sum((1, 2)).clamp_min(NEAREST).sqrt() / 2**0.5
    length = way.norm(dim=-1, keepdim=True)
    said = translation / translation.norm(dim=-1, keepdim=True).clamp_min(NO_WAY)
    off = (said - way / length.clamp_min(NO_WAY)).square().sum(-1).clamp_min(NEAREST).sqrt()
    return (turned + off * (length[:, 0] > NO_WAY)).mean()


def _below(confidence: Tensor) -> Tensor:
    """How far log(C - 1) lies below `LEAST_RAW`."""
    return (LEAST_RAW - (confidence - 1).clamp_min(1e-6).log()).clamp_min(0)


def _clean(points: Tensor, valid: Tensor) -> Tensor:
    """float32, cut to what can be squared; the origin where not valid, so that nothing there counts."""
    points = torch.nan_to_num(points.float(), nan=0.0, posinf=FARTHEST, neginf=-FARTHEST).clamp(-FARTHEST, FARTHEST)
    return torch.where(valid[..., None], points, 0.0)


def _distances(points: Tensor, valid: Tensor) -> Tensor:
    return (points.norm(dim=-1) * valid).flatten(1).sum(1)


def _per_pair(scale: Tensor) -> Tensor:
    return scale[:, None, None, None]
