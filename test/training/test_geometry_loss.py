"""What is true of cells, on views of a wall whose geometry is known; and that what is true costs the least."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dust3r_ros.network.cell_matching import places_of
from dust3r_ros.network.match_refinement import FINE_CELL, REACH, WINDOW, Look
from dust3r_ros.network.pair_geometry import PairGeometry
from dust3r_ros.network.two_view_bundle import TwoCameras
from dust3r_ros.network.two_view_reprojection import MatchedView
from dust3r_ros.training.geometry_loss import TrueCells, geometry_loss, likeness_loss, looks_loss, true_cells
from dust3r_ros.training.losses import PointmapTruth

HEIGHT, WIDTH = 48, 64
DISTANCE, ASIDE = 2.0, 0.25  # metres: of the wall, and of camera 2 to the right
INTRINSICS = (torch.tensor([[50.0, 50.0, 33.0, 22.0]]), torch.tensor([[40.0, 40.0, 30.5, 24.5]]))  # principal points beside the middle


def _wall(intrinsics: Tensor, aside: float) -> Tensor:
    """[1, H, W, 3] of a wall straight ahead, seen by a camera `aside`, in camera 1's frame."""
    v, u = torch.meshgrid(torch.arange(HEIGHT, dtype=torch.float32), torch.arange(WIDTH, dtype=torch.float32), indexing="ij")
    fx, fy, cx, cy = intrinsics[0]
    points = torch.stack([(u - cx) / fx, (v - cy) / fy, torch.ones_like(u)], dim=-1) * DISTANCE
    return (points + torch.tensor([aside, 0.0, 0.0]))[None]


def _truth() -> PointmapTruth:
    pose = torch.eye(4)[None].clone()
    pose[0, 0, 3] = ASIDE
    known = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    return PointmapTruth(_wall(INTRINSICS[0], 0.0), _wall(INTRINSICS[1], ASIDE), known, known.clone(), pose, *INTRINSICS)


def _expected() -> Tensor:
    """Where cells' middles are seen in view 2, pixels from its middle, by the two pinhole cameras."""
    places = places_of(HEIGHT, WIDTH, torch.device("cpu"))
    middle = torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    slope = (places + middle - INTRINSICS[0][0, 2:]) / 50.0
    return 40.0 * (slope - torch.tensor([ASIDE / DISTANCE, 0.0])) + INTRINSICS[1][0, 2:] - middle


def test_true_places_count_in_principal_points_and_focal_lengths() -> None:
    cells = true_cells(_truth())
    torch.testing.assert_close(cells.found[0], _expected(), atol=1e-3, rtol=0)
    torch.testing.assert_close(cells.log_depth, torch.full_like(cells.log_depth, DISTANCE).log())
    assert bool(cells.is_known.all())
    inside = ((_expected() + torch.tensor([31.5, 23.5])).round() >= 0).all(-1)
    inside &= ((_expected() + torch.tensor([31.5, 23.5])).round() <= torch.tensor([63, 47])).all(-1)
    assert torch.equal(cells.is_seen[0], inside)


def test_cells_of_a_halved_picture_are_those_of_a_smaller_camera() -> None:
    """The same wall in twice the size: the same places, in the smaller picture's pixels."""
    larger = [torch.cat([2 * k[:, :2], 2 * k[:, 2:] + 0.5], dim=1) for k in INTRINSICS]
    v, u = torch.meshgrid(torch.arange(2.0 * HEIGHT), torch.arange(2.0 * WIDTH), indexing="ij")
    walls = [torch.stack([(u - k[0, 2]) / k[0, 0], (v - k[0, 3]) / k[0, 1], torch.ones_like(u)], dim=-1)[None] * DISTANCE for k in larger]
    known = torch.ones(walls[0].shape[:3], dtype=torch.bool)
    truth = PointmapTruth(walls[0], walls[1] + torch.tensor([ASIDE, 0.0, 0.0]), known, known, _truth().pose, *larger)
    cells, wanted = true_cells(truth, shrink=2), true_cells(_truth())
    torch.testing.assert_close(cells.found, wanted.found, atol=1e-3, rtol=0)
    torch.testing.assert_close(cells.log_depth, wanted.log_depth)
    assert (cells.is_seen == wanted.is_seen).float().mean() > 0.95  # half a pixel at the border


def test_hidden_torn_and_unknown_cells_are_told_apart() -> None:
    truth = _truth()
    truth.points_2[0, :24] *= 0.5  # something hides the upper half of the wall from camera 2
    truth.points_1[0, 30:34, 30:34] *= 0.5  # an edge runs through cells
    truth.valid_1[0, 40:, :8] = False  # the sky
    cells = true_cells(truth)
    grid = [value.view(HEIGHT // 4, WIDTH // 4) for value in (cells.is_known, cells.is_seen, cells.is_torn)]
    known, seen, torn = grid
    assert not bool(seen[:4].any())
    assert bool(seen[9, 4:12].all())
    assert bool(torn[7, 7])
    assert not bool((known[10:, :2] | seen[10:, :2] | torn[10:, :2]).any())
    assert not bool((known & torn).any())


def _cells() -> TrueCells:
    return true_cells(_truth())


def _look(found: Tensor, centre: Tensor, log_error: float = -1.0, window: Tensor | None = None) -> Look:
    seen = torch.where(_cells().is_seen, 4.0, -4.0)
    window = torch.zeros(*found.shape[:2], WINDOW**2) if window is None else window
    share, memory = torch.zeros(*found.shape[:2], 1), torch.zeros(len(found), 1, HEIGHT // 4, WIDTH // 4)
    return Look(found, torch.full(found.shape[:2], log_error), seen, window, centre, share, memory)


def test_true_places_cost_less_than_others_and_being_sure_of_wrong_ones_most() -> None:
    cells = _cells()
    right = _look(cells.found, cells.found)
    wrong = replace(right, found=cells.found + 2.0)
    assert looks_loss([right], cells) < looks_loss([wrong], cells)
    assert looks_loss([wrong], cells) > looks_loss([replace(wrong, log_error=torch.full_like(wrong.log_error, 1.4))], cells)
    assert looks_loss([right], cells) < looks_loss([replace(right, seen=-right.seen)], cells)
    assert looks_loss([wrong, right], cells) < looks_loss([right, wrong], cells)  # the last look counts most


def test_what_is_hidden_teaches_nothing_about_places() -> None:
    truth = _truth()
    truth.points_2[0] *= 0.5
    cells = true_cells(truth)
    found = cells.found.clone().requires_grad_()
    looks_loss([_look(found, cells.found)], cells).backward()  # type: ignore[no-untyped-call]
    assert found.grad is not None
    assert not bool(found.grad.any())


def test_windows_are_to_share_as_linear_interpolation_does() -> None:
    """Of all windows that look at a place 0.6 places right and 0.3 down of the middle one, that of the shares costs the least."""
    cells = _cells()
    centre = cells.found - FINE_CELL * torch.tensor([0.6, 0.3])
    share = torch.full((WINDOW, WINDOW), 1e-9)
    share[REACH : REACH + 2, REACH : REACH + 2] = torch.tensor([[0.7 * 0.4, 0.7 * 0.6], [0.3 * 0.4, 0.3 * 0.6]])
    window = share.log().flatten().expand(1, cells.found.shape[1], -1).clone().requires_grad_()
    loss = looks_loss([_look(cells.found, centre, window=window)], cells)
    loss.backward()  # type: ignore[no-untyped-call]
    assert window.grad is not None
    assert window.grad.abs().max() < 1e-5  # nothing to gain


def test_likeness_of_true_places_costs_least() -> None:
    """At places exactly between cells the four around them are equally right."""
    count = (HEIGHT // 4) * (WIDTH // 4)
    places = places_of(HEIGHT, WIDTH, torch.device("cpu"))
    nothing = torch.zeros(1, count)
    true = torch.ones(1, count, dtype=torch.bool)
    cells = TrueCells(places[None] + 2.0, nothing, true, true, ~true)
    size = (HEIGHT, WIDTH)
    distance = (cells.found[0][:, None] - places).abs().amax(-1)
    four = torch.where(distance < 3, 0.0, -30.0)[None]
    back = TrueCells(places[None] - 2.0, nothing, true, true, ~true)
    assert likeness_loss(four, (cells, back), (size, size)).item() == pytest.approx(torch.tensor(4.0).log().item(), rel=1e-3)
    assert likeness_loss(0 * four, (cells, back), (size, size)).item() == pytest.approx(torch.tensor(float(count)).log().item(), rel=1e-3)


def _truth_back() -> PointmapTruth:
    """Of the same views the other way round."""
    truth = _truth()
    back = torch.linalg.inv(truth.pose)
    moved = [points + back[:, None, None, :3, 3] for points in (truth.points_2, truth.points_1)]
    return PointmapTruth(moved[0], moved[1], truth.valid_2, truth.valid_1, back, *INTRINSICS[::-1])


def _true_geometry() -> PairGeometry:
    """What is true, on a scale of its own."""
    cells = [true_cells(truth) for truth in (_truth(), _truth_back())]
    log_focals = [torch.tensor([focal]).log() for focal in (50.0, 40.0)]
    log_depths = [of.log_depth - 0.3 for of in cells]
    nothing = torch.zeros_like(log_depths[0])
    looks = [[_look(of.found, of.found)] for of in cells]
    priors = [
        MatchedView(
            nothing[..., None], nothing[..., None], nothing, depth, nothing, focal, nothing[:, 0], torch.zeros(1, 2), torch.tensor([False])
        )
        for depth, focal in zip(log_depths, log_focals, strict=True)
    ]
    missed = (nothing, nothing, nothing[..., None], nothing[..., None])
    cameras = TwoCameras(
        torch.eye(3)[None], _truth().pose[:, :3, 3] * 0.1, *log_focals, *log_depths, *missed, *(4 * [nothing[:, 0]]), nothing, nothing
    )
    return PairGeometry(looks[0], looks[1], priors[0], priors[1], cameras)


def _geometry_loss(geometry: PairGeometry) -> float:
    truths = _truth(), _truth_back()
    return geometry_loss(geometry, truths, (true_cells(truths[0]), true_cells(truths[1]))).item()


@pytest.mark.parametrize("part", ["cameras", "priors_1", "priors_2"])
def test_whatever_is_not_true_of_cameras_depths_and_priors_costs(part: str) -> None:
    """Each by itself; a scale of a view's own depths alone is free."""
    geometry = _true_geometry()
    least = _geometry_loss(geometry)
    value = getattr(geometry, part)
    wrong = {name: getattr(value, name) + 0.2 for name in vars(value) if name.startswith("log_focal")}
    for name in (name for name in vars(value) if name.startswith("log_depth")):
        depth = getattr(value, name)
        wrong[name] = depth + torch.linspace(-0.3, 0.3, depth.shape[1])
        assert _geometry_loss(replace(geometry, **{part: replace(value, **{name: depth + 0.2})})) == pytest.approx(least, abs=1e-5)
    if part == "cameras":
        wrong["rotation"] = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.8, -0.6], [0.0, 0.6, 0.8]]])
        wrong["translation"] = torch.tensor([[0.0, 0.1, 0.0]])
    for name, other in wrong.items():
        assert _geometry_loss(replace(geometry, **{part: replace(value, **{name: other})})) > least + 0.02, name
