"""The losses: against numbers worked out by hand, and with gradients that are right and stay finite."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.plane_pairs import PlanePairs

from dust3r_ros.training.descriptor_loss import at_pixels, matching_loss
from dust3r_ros.training.inputs import truths_of
from dust3r_ros.training.losses import PointmapTruth, mean_distance, pointmap_loss, pose_loss


def _truth(valid: bool = True) -> PointmapTruth:
    """Two pixels in view 1 at distances 1 and 3, one in view 2 at distance 2: the mean distance is 2."""
    first = torch.tensor([[[[0.0, 0, 1], [0, 0, 3]]]])
    second = torch.tensor([[[[2.0, 0, 0]]]])
    return PointmapTruth(
        first, second, torch.full((1, 1, 2), valid), torch.full((1, 1, 1), valid), torch.eye(4)[None], *2 * (torch.ones(1, 4),)
    )


def _confidence(c: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((1, 1, 2), c), torch.full((1, 1, 1), c)


def test_scale_is_the_mean_distance_of_both_views_valid_points() -> None:
    truth = _truth()
    assert mean_distance(truth.points_1, truth.points_2, truth.valid_1, truth.valid_2).tolist() == [2.0]
    assert mean_distance(truth.points_1, truth.points_2, torch.tensor([[[True, False]]]), truth.valid_2).tolist() == [1.5]


def test_value_by_hand() -> None:
    """The prediction is (0, 0, 1), (0, 0, 1), (0, 0, 1): its scale is 1. l = 1/2, 1/2 and |(-1, 0, 1)|; C = 2."""
    truth = _truth()
    ones = torch.tensor([0.0, 0, 1])
    found = pointmap_loss((ones.expand(1, 1, 2, 3), ones.expand(1, 1, 1, 3)), _confidence(), truth)
    error = (0.5 + 0.5 + math.sqrt(2)) / 3
    assert found.error.item() == pytest.approx(error)
    assert found.loss.item() == pytest.approx(2 * error - 0.2 * math.log(2))
    assert found.confidence.item() == pytest.approx(2)


def test_only_metric_truth_tells_the_scale() -> None:
    truth = _truth()
    tripled = (3 * truth.points_1, 3 * truth.points_2)
    assert pointmap_loss(tripled, _confidence(), truth).error.item() == pytest.approx(0, abs=1e-6)
    # Off by twice the distance, 2, 6 and 4 metres, in units of the true scale 2.
    assert pointmap_loss(tripled, _confidence(), truth, metric=True).error.item() == pytest.approx((1 + 3 + 2) / 3)


def test_invalid_pixels_count_for_nothing_whatever_they_hold() -> None:
    truth = _truth()
    masked = PointmapTruth(
        truth.points_1.clone(), truth.points_2, torch.tensor([[[True, False]]]), truth.valid_2, truth.pose, *2 * (torch.ones(1, 4),)
    )
    masked.points_1[0, 0, 1] = float("nan")
    points = (torch.rand(1, 1, 2, 3), torch.rand(1, 1, 1, 3))
    reference = pointmap_loss(points, _confidence(), masked)
    points[0][0, 0, 1] = 1e30
    assert reference.loss.isfinite()
    assert torch.equal(pointmap_loss(points, _confidence(), masked).loss, reference.loss)


@pytest.mark.filterwarnings("ignore:Input .* is not a double precision")  # the loss is float32 by intent: larger steps, wider bounds
@pytest.mark.parametrize("metric", [False, True])
def test_gradient_against_differences(metric: bool) -> None:
    truth = PointmapTruth(*(v.double() if v.is_floating_point() else v for v in vars(_truth()).values()))
    generator = torch.Generator().manual_seed(0)
    points = [torch.rand(shape, generator=generator) + 0.5 for shape in ((1, 1, 2, 3), (1, 1, 1, 3))]
    sure = [torch.rand(shape, generator=generator) + 1.5 for shape in ((1, 1, 2), (1, 1, 1))]
    leaves = [value.requires_grad_() for value in (*points, *sure)]

    def loss(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return pointmap_loss((a, b), (c, d), truth, metric=metric).loss

    assert torch.autograd.gradcheck(loss, leaves, eps=1e-2, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, float("inf")])
@pytest.mark.parametrize("metric", [False, True])
def test_finite_for_points_at_zero_or_huge(value: float, metric: bool) -> None:
    points = [torch.full(shape, value, requires_grad=True) for shape in ((1, 1, 2, 3), (1, 1, 1, 3))]
    sure = [torch.full(shape, 1e30, requires_grad=True) for shape in ((1, 1, 2), (1, 1, 1))]
    loss = pointmap_loss((points[0], points[1]), (sure[0], sure[1]), _truth(), metric=metric).loss
    loss.backward()
    assert loss.isfinite()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in (*points, *sure))


def test_pairs_without_a_valid_pixel_give_nothing() -> None:
    assert pointmap_loss((torch.rand(1, 1, 2, 3), torch.rand(1, 1, 1, 3)), _confidence(), _truth(valid=False)).loss.item() == 0


def test_truth_holds_both_orders_and_is_consistent() -> None:
    """What view 1 is in its own frame is, in the other order, what the second view is: the same points, moved by the relative pose."""
    batch = PlanePairs(pairs=2).batch(0)
    (truth,) = truths_of(batch)
    assert len(truth.points_1) == 4
    move = torch.linalg.inv(batch.second.pose)
    moved = truth.points_1[:2] @ move[:, None, :3, :3].transpose(-1, -2) + move[:, None, None, :3, 3]
    torch.testing.assert_close(moved, truth.points_2[2:], atol=1e-4, rtol=1e-4)


def test_matching_by_hand() -> None:
    """Two correspondences with orthogonal descriptors: each term is -log of e^s / (e^s + 1), s = 1 / temperature."""
    unit = torch.eye(2)[None]
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert matching_loss(unit, unit, valid, 0.5).item() == pytest.approx(2 * math.log(1 + math.exp(-2)), rel=1e-5)
    assert matching_loss(unit, unit.flip(1), valid, 0.5).item() == pytest.approx(2 * math.log(1 + math.exp(2)), rel=1e-5)


def test_matching_leaves_invalid_correspondences_out() -> None:
    descriptors = torch.nn.functional.normalize(torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    others = descriptors.roll(1, 2)
    valid = torch.tensor([[True, True, True, False, False]])
    expected = matching_loss(descriptors[:, :3], others[:, :3], valid[:, :3])
    torch.testing.assert_close(matching_loss(descriptors, others, valid), expected)
    confidence = torch.full((1, 5), 3.0)
    torch.testing.assert_close(matching_loss(descriptors, others, valid, confidence=confidence), 3 * expected - 0.2 * math.log(3))


def test_values_at_pixels() -> None:
    values = torch.arange(12.0).view(1, 3, 4, 1)
    pixels = torch.tensor([[[0.0, 0.0], [3.0, 2.0], [1.5, 1.0]]])
    torch.testing.assert_close(at_pixels(values, pixels)[0, :, 0], torch.tensor([0.0, 11.0, 5.5]))


def _gradient_of_confidence(error: tuple[float, float], raw: float, from_nothing: bool) -> list[float]:
    """d loss / d raw of two pixels that are off by these shares of the mean distance; C = 1 + exp(raw)."""
    truth = PointmapTruth(
        *[torch.tensor([[[[0.0, 0, 1]]]]) for _ in range(2)],
        *[torch.ones(1, 1, 1) > 0 for _ in range(2)],
        torch.eye(4)[None],
        *2 * (torch.ones(1, 4),),
    )
    points = tuple(torch.tensor([[[[math.sqrt(1 - (1 - e**2 / 2) ** 2), 0, 1 - e**2 / 2]]]]) for e in error)  # turned: the scale stays
    values = torch.full((2, 1, 1, 1), raw, dtype=torch.float64, requires_grad=True)
    confidence = 1 + values.exp()
    loss = pointmap_loss((points[0], points[1]), (confidence[0], confidence[1]), truth, from_nothing=from_nothing).loss
    loss.backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    return [float(value) for value in values.grad.flatten()]


def test_from_nothing_the_better_half_gains_confidence() -> None:
    """Both errors are above alpha 0.2: by the papers' loss no pixel is worth a confidence, from nothing the better one is."""
    plain, kept = (_gradient_of_confidence((0.4, 0.8), -3.0, from_nothing) for from_nothing in (False, True))
    assert plain[0] > 0
    assert plain[1] > 0
    assert kept[0] < 0 < kept[1]


def test_from_nothing_no_confidence_dies() -> None:
    """So near 1 that the papers' loss has no gradient left, it is drawn back; where it is worth something, both losses are one."""
    plain, kept = (_gradient_of_confidence((0.8, 0.8), -9.0, from_nothing) for from_nothing in (False, True))
    assert 0 < plain[0] < 1e-4
    assert kept[0] < -1e-3
    good = [_gradient_of_confidence((0.1, 0.15), -2.0, from_nothing) for from_nothing in (False, True)]
    assert good[0] == pytest.approx(good[1])


def _posed(translation: tuple[float, float, float]) -> PointmapTruth:
    pose = torch.eye(4)[None]
    pose[0, :3, 3] = torch.tensor(translation)
    return replace(_truth(), pose=pose)


def test_pose_costs_how_far_axes_and_direction_are_off() -> None:
    """A quarter turn: two of three axes are off by sqrt 2, together 2, in units of sqrt 2. A translation at a right angle: sqrt 2."""
    eye = torch.eye(3)[None]
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    truth = _posed((1.0, 0, 0))
    assert pose_loss(eye, torch.tensor([[7.0, 0, 0]]), truth).item() == pytest.approx(0, abs=1e-3)  # at any length
    assert pose_loss(quarter, torch.tensor([[7.0, 0, 0]]), truth).item() == pytest.approx(math.sqrt(2), abs=1e-3)
    assert pose_loss(eye, torch.tensor([[0.0, 3, 0]]), truth).item() == pytest.approx(math.sqrt(2), abs=1e-3)
    assert pose_loss(eye, torch.tensor([[0.0, 3, 0]]), _posed((0.0, 0, 1e-3))).item() == pytest.approx(0, abs=1e-3)  # no direction


def test_pose_asks_nothing_of_points_that_are_not_known() -> None:
    """They may be anything: how short a translation has no direction is told by the others."""
    truth = _posed((1.0, 0, 0))
    eye, aside = torch.eye(3)[None], torch.tensor([[0.0, 3, 0]])
    truth.valid_1[0, 0, 1] = False
    reference = pose_loss(eye, aside, truth)
    for anything in (float("nan"), float("inf")):
        truth.points_1[0, 0, 1] = anything
        assert torch.equal(pose_loss(eye, aside, truth), reference)


def test_poses_gradient_is_finite_where_nothing_is_said_yet() -> None:
    rotation, translation = torch.eye(3)[None].requires_grad_(), torch.zeros(1, 3, requires_grad=True)
    pose_loss(rotation, translation, _posed((1.0, 0, 0))).backward()  # type: ignore[no-untyped-call]
    for leaf in (rotation, translation):
        assert leaf.grad is not None
        assert bool(torch.isfinite(leaf.grad).all())
    assert translation.grad is not None
    assert translation.grad[0, 0] < 0  # towards the truth


def test_truth_of_pairs_says_where_the_second_camera_is() -> None:
    """View 2's points are its own ones, moved by the pose."""
    batch = PlanePairs().batch(0)
    truth = truths_of(batch)[0]
    count = len(batch.first.images)
    own = truths_of(batch.swapped())[0]  # first half: seen from the second camera
    moved = torch.einsum("bij,bhwj->bhwi", truth.pose[:count, :3, :3], own.points_1[:count]) + truth.pose[:count, None, None, :3, 3]
    torch.testing.assert_close(moved, truth.points_2[:count], atol=1e-4, rtol=1e-4)
