"""The focal length of a pointmap."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dust3r_ros.geometry import Camera, GeometryError, focal_from_pointmap


def pointmap(focal: float, centre: tuple[float, float] = (79.5, 59.5), seed: int = 0) -> np.ndarray:
    camera = Camera(160, 120, focal, focal, *centre)
    depth = np.random.default_rng(seed).uniform(1.0, 5.0, (120, 160, 1))
    return camera.unproject(camera.pixel_grid()) * depth


@given(st.floats(20.0, 3000.0), st.floats(0.001, 1000.0))
def test_the_focal_length_comes_back_at_any_scale(focal, scale):
    assert focal_from_pointmap(pointmap(focal) * scale) == pytest.approx(focal, rel=1e-6)


@given(st.floats(0.0, 159.0), st.floats(0.0, 119.0))
def test_the_principal_point_may_be_anywhere(cx, cy):
    assert focal_from_pointmap(pointmap(150.0, (cx, cy)), principal_point=(cx, cy)) == pytest.approx(150.0, rel=1e-6)


def test_the_middle_is_at_half_the_size_less_half_a_pixel():
    assert focal_from_pointmap(pointmap(150.0)) == focal_from_pointmap(pointmap(150.0), principal_point=(79.5, 59.5))


def test_torch_and_numpy_are_alike():
    points = pointmap(140.0).astype(np.float32)
    weights = np.random.default_rng(1).uniform(0, 5, (120, 160)).astype(np.float32)
    tensors = torch.from_numpy(points).requires_grad_(), torch.from_numpy(weights)
    assert focal_from_pointmap(*tensors) == focal_from_pointmap(points, weights)


def test_it_minimises_the_weighted_distance():
    rng = np.random.default_rng(2)
    points = pointmap(140.0) * rng.normal(1.0, 0.05, (120, 160, 3))
    weights = rng.uniform(0, 3, (120, 160))
    v, u = np.mgrid[:120, :160]

    def cost(focal: float) -> float:
        seen = focal * points[..., :2] / points[..., 2:]
        return float((weights * np.linalg.norm(np.stack([u - 79.5, v - 59.5], -1) - seen, axis=-1)).sum())

    found = focal_from_pointmap(points, weights)
    assert all(cost(found) < cost(found * factor) for factor in (0.999, 1.001, 0.9, 1.1))


def test_wild_points_and_unweighted_ones_do_not_matter():
    points = pointmap(150.0)
    rng = np.random.default_rng(3)
    wild = rng.random((120, 160)) < 0.2
    points[wild] = rng.uniform(-5, 5, (int(wild.sum()), 3))
    assert focal_from_pointmap(points) == pytest.approx(150.0, rel=0.01)
    assert focal_from_pointmap(points, (~wild).astype(float)) == pytest.approx(150.0, rel=1e-6)


def test_points_behind_or_not_finite_are_left_out():
    points = pointmap(150.0)
    points[:10], points[10:20], points[20:30] = np.nan, -points[10:20], np.inf
    points[30:40, :, 2] = 0
    assert focal_from_pointmap(points) == pytest.approx(150.0, rel=1e-6)


@pytest.mark.parametrize(
    ("points", "weights", "named"),
    [
        (-pointmap(150.0), None, "0 usable points"),
        (pointmap(150.0), np.zeros((120, 160)), "0 usable points"),
        (np.full((120, 160, 3), np.nan), None, "0 usable points"),
        (np.tile([0.0, 0.0, 1.0], (120, 160, 1)), None, "not determined"),
        (pointmap(150.0) * (-1, -1, 1), None, "do not belong"),
        (np.ones((10, 3)), None, r"shape \(10, 3\)"),
        (pointmap(150.0), np.ones((3, 3)), r"shape \(3, 3\)"),
    ],
    ids=["behind", "no weight", "nan", "on the axis", "mirrored", "no map", "weights of another size"],
)
def test_what_has_no_focal_length_is_said(points, weights, named):
    with pytest.raises(GeometryError, match=named):
        focal_from_pointmap(points, weights)
