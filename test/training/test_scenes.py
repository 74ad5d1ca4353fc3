"""Generated pairs: the same for the same step, exact in depth, with the overlap that was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dust3r_ros.training.pairs import PairBatch, points_in
from dust3r_ros.training.recipe_file import recipe_of
from dust3r_ros.training.scenes import (
    CameraEffects,
    GeneratedPairs,
    PairsConfig,
    SceneConfig,
    SceneError,
    correspondences,
    overlaps,
    picture_of,
    sequence,
)
from dust3r_ros.training.scenes.cameras import pixel_grid, rays
from dust3r_ros.training.scenes.composition import BUILDERS, composed
from dust3r_ros.training.scenes.overlap import projected
from dust3r_ros.training.sources import pictures_source, training_source

TEXTURES = SceneConfig(layer_size=64, noise_layers=4, pattern_layers=8, photo_layers=0)
PAIRS = PairsConfig(width=64, height=48, pairs=8, scene=TEXTURES)


@pytest.fixture(scope="module")
def source() -> GeneratedPairs:
    return GeneratedPairs(PAIRS, seed=3)


@pytest.fixture(scope="module")
def batch(source: GeneratedPairs) -> PairBatch:
    return source.batch(0)


def of_kind(kind: str, **settings: object) -> GeneratedPairs:
    return GeneratedPairs(replace(PAIRS, scene=replace(TEXTURES, weights={kind: 1.0}), **settings), seed=5)


def same(one: PairBatch, other: PairBatch) -> bool:
    sides = ((one.first, other.first), (one.second, other.second))
    return all(torch.equal(a, b) for left, right in sides for a, b in zip(vars(left).values(), vars(right).values(), strict=True))


def test_a_batch_is_what_the_networks_take(batch: PairBatch) -> None:
    for view in (batch.first, batch.second):
        assert view.images.shape == (8, 3, 48, 64)
        assert view.depth.shape == view.valid.shape == (8, 48, 64)
        assert view.images.dtype == view.depth.dtype == view.intrinsics.dtype == view.pose.dtype == torch.float32
        steps = (view.images + 1) * 127.5
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
        assert steps.min() >= 0
        assert steps.max() <= 255
        rotation = view.pose[:, :3, :3]
        torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(8, 3, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(8))
        assert torch.isfinite(view.depth).all()
        assert (view.depth[view.valid] > 0).all()


def test_a_batch_depends_on_the_step_and_not_on_what_came_before(source: GeneratedPairs, batch: PairBatch) -> None:
    source.batch(7)
    torch.manual_seed(1)
    assert same(source.batch(0), batch)
    assert same(GeneratedPairs(PAIRS, seed=3).batch(0), batch)


def test_steps_seeds_and_splits_have_scenes_of_their_own(source: GeneratedPairs, batch: PairBatch) -> None:
    others = (source.batch(1), GeneratedPairs(PAIRS, seed=4).batch(0), GeneratedPairs(PAIRS, seed=3, split="held_out").batch(0))
    for other in others:
        assert not torch.isclose(other.first.depth, batch.first.depth, rtol=1e-3).flatten(1).float().mean(1).gt(0.5).any()


@pytest.mark.parametrize("kind", sorted(BUILDERS))
def test_points_of_one_view_have_the_depth_of_the_other_where_it_sees_them(kind: str) -> None:
    """Two renderings that know nothing of each other agree: on a plane inverse depth is linear between four pixels."""
    batch = of_kind(kind).batch(0)
    generator = torch.Generator().manual_seed(0)
    first, second, valid = correspondences(batch, 400, generator)
    assert valid.float().mean() > 0.5
    points = points_in(batch.first, batch.second.pose)
    column, row = first.long().unbind(-1)
    own = points[torch.arange(len(points))[:, None], row, column]
    x, y, z = projected(own, batch.second.intrinsics)
    torch.testing.assert_close(torch.stack([x, y], -1)[valid], second[valid])
    grid = second / torch.tensor([63.0, 47.0]) * 2 - 1
    inverse = torch.where(batch.second.valid, 1 / batch.second.depth, 0.0)[:, None]
    sampled = torch.nn.functional.grid_sample(inverse, grid[:, :, None], align_corners=True, padding_mode="border")[:, 0, :, 0]
    error = (z * sampled - 1).abs()[valid]
    assert error.quantile(0.75) < (2e-3 if kind == "terrain" else 1e-4)  # what is round or cut by an edge is the rest


def test_correspondences_have_the_same_colour() -> None:
    plain = CameraEffects(exposure=0, white_balance=0, vignetting=0, noise=0, blur=0, jpeg=0)
    batch = of_kind("room", effects=plain, overlap=(0.7, 1.0)).batch(0)
    first, second, valid = correspondences(batch, 300, torch.Generator().manual_seed(0))

    def colours(images: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        grid = pixels / torch.tensor([63.0, 47.0]) * 2 - 1
        return torch.nn.functional.grid_sample(images, grid[:, :, None], align_corners=True)[..., 0].transpose(1, 2)

    one, other = colours(batch.first.images, first), colours(batch.second.images, second)
    right = (one - other).abs().mean(-1)[valid].median()
    wrong = (one - other.roll(37, dims=1)).abs().mean(-1)[valid].median()
    assert right < 0.4 * wrong


def test_a_pair_without_enough_in_common_says_so(batch: PairBatch) -> None:
    _, _, valid = correspondences(batch, 64 * 48 + 10, torch.Generator().manual_seed(0))
    assert valid.shape == (8, 64 * 48 + 10)
    assert not valid[:, -10:].any()
    assert valid.any(dim=1).all()


@pytest.mark.parametrize("wanted", [(0.2, 1.0), (0.6, 0.8)])
def test_overlap_is_spread_over_the_range_that_was_asked_for(wanted: tuple[float, float]) -> None:
    source = GeneratedPairs(replace(PAIRS, pairs=32, overlap=wanted), seed=1)
    found = torch.cat([overlaps(source.batch(step)) for step in range(2)]).sort().values
    target = wanted[0] + (wanted[1] - wanted[0]) * (torch.arange(64) + 0.5) / 64
    assert (found - target).abs().mean() < 0.08
    assert (found > wanted[0] - 0.1).float().mean() > 0.9


def test_cameras_stand_in_the_open() -> None:
    """No median depth of a nose at a wall, and something to see in every view."""
    for kind in BUILDERS:
        batch = of_kind(kind).batch(1)
        for view in (batch.first, batch.second):
            depth = torch.where(view.valid, view.depth, torch.inf).flatten(1).median(dim=1).values
            assert (depth > 0.12).all(), kind
            assert (view.valid.flatten(1).float().mean(1) > 0.25).all(), kind
            assert (view.images.flatten(1).std(dim=1) > 0.02).all(), kind


def test_pictures_that_teach_one_by_one_are_small_and_of_scenes_of_their_own() -> None:
    words = {"layer_size": 64, "noise_layers": 4, "pattern_layers": 8, "photo_layers": 0}
    text = {"seed": 3, "data": {"sizes": ["64x48"], "batch": 4, "pictures": 9}, "scenes": {"pairs_per_scene": 4, "scene": words}}
    recipe, device = recipe_of(text, "the test"), torch.device("cpu")
    batch = pictures_source(recipe, device, 2).batch(1)
    assert batch.first.images.shape == batch.second.images.shape == (5, 3, 24, 32)
    assert len(torch.unique(torch.cat([batch.first.pose, batch.second.pose])[:, :3, 3], dim=0)) == 10
    assert same(batch, pictures_source(recipe, device, 2).batch(1))
    whole = training_source(recipe, device).batch(1)
    assert whole.first.images.shape == (4, 3, 48, 64)
    assert not set(whole.first.pose[:, 0, 3].tolist()) & set(batch.first.pose[:, 0, 3].tolist())


def test_views_of_one_camera_share_its_principal_point() -> None:
    batch = GeneratedPairs(replace(PAIRS, pairs=24, same_camera=0.5), 4).batch(0)
    one, two = batch.first.intrinsics, batch.second.intrinsics
    same = one[:, 0] == two[:, 0]
    assert 0 < same.sum() < len(same)
    assert torch.equal(one[same], two[same])
    assert ((one - two)[~same, 2:].abs() > 1e-3).any(1).all()


def test_intrinsics_lie_in_the_field_of_view_that_was_asked_for() -> None:
    batch = GeneratedPairs(replace(PAIRS, field_of_view=(50.0, 60.0)), seed=2).batch(0)
    for view in (batch.first, batch.second):
        angle = torch.rad2deg(2 * torch.atan(32 / view.intrinsics[:, 0]))
        assert (angle > 49.99).all()
        assert (angle < 60.01).all()
        assert torch.equal(view.intrinsics[:, 0], view.intrinsics[:, 1])
        assert ((view.intrinsics[:, 2:] - torch.tensor([31.5, 23.5])).abs() < 1).all()


def _entries(to_unit: NDArray[np.float64], half_index: tuple[int, ...], openings: NDArray[np.float64], origin: NDArray[np.float64],
             way: NDArray[np.float64]) -> float:  # fmt: skip
    """Textbook intersections, one ray, float64: quadratic formulas and faces one by one."""
    walls, panels, boxes, spheres = half_index
    best = np.inf
    for number, matrix in enumerate(to_unit):
        o, d = matrix[:, :3] @ origin + matrix[:, 3], matrix[:, :3] @ way
        hits = []
        with np.errstate(all="ignore"):
            faces = [(axis, side) for axis in range(3) for side in (-1.0, 1.0)]
            if number < panels:
                t = -o[2] / d[2]
                x, y = (o + t * d)[:2]
                holes = openings[number] if number < walls else []
                if max(abs(x), abs(y)) <= 1 and not any(abs(x - h[0]) <= h[2] and abs(y - h[1]) <= h[3] for h in holes):
                    hits.append(t)
            elif number < boxes:
                for axis, side in faces:
                    t = (side - o[axis]) / d[axis]
                    p = np.delete(o + t * d, axis)
                    if np.abs(p).max() <= 1:
                        hits.append(t)
            else:
                keep = slice(0, 3) if number < spheres else slice(0, 2)
                a, b, c = d[keep] @ d[keep], o[keep] @ d[keep], o[keep] @ o[keep] - 1
                if b * b >= a * c:
                    hits += [t for t in ((-b - np.sqrt(b * b - a * c)) / a, (-b + np.sqrt(b * b - a * c)) / a)
                             if number < spheres or abs(o[2] + t * d[2]) <= 1]  # fmt: skip
                if number >= spheres:
                    hits += [t for t in ((s - o[2]) / d[2] for s in (-1.0, 1.0)) if np.hypot(*(o + t * d)[:2]) <= 1]
        best = min([best, *(t for t in hits if t > 1e-3)])
    return best


@pytest.mark.parametrize("kind", sorted(set(BUILDERS) - {"terrain"}))
def test_depth_is_that_of_textbook_intersections_in_float64(kind: str) -> None:
    from dust3r_ros.training.scenes import solids

    source = of_kind(kind, pairs=2, pairs_per_scene=2)
    batch = source.batch(4)
    rng = np.random.default_rng([5, 0, 4])
    scene, _ = composed(source.config.scene, source.atlas.groups, None, 1, 4, rng)[0]
    bounds = (solids.WALLS, solids.FIRST_BOX, solids.FIRST_SPHERE, solids.FIRST_CYLINDER)
    checked = wrong = 0
    for view in (batch.first, batch.second):
        ways = rays(view.intrinsics.double(), view.pose.double(), pixel_grid(64, 48, "cpu").double()).numpy()
        for pair in range(2):
            for pixel in range(pair, 64 * 48, 29):
                origin = view.pose[pair, :3, 3].double().numpy()
                truth = _entries(
                    scene.to_unit[0].double().numpy(), bounds, scene.openings[0].double().numpy(), origin, ways[pair, :, pixel]
                )
                found = float(view.depth[pair].flatten()[pixel]) if view.valid[pair].flatten()[pixel] else np.inf
                checked += 1
                wrong += not (found == truth or abs(found - truth) < 2e-5 * truth)
    assert checked > 400
    assert wrong <= 0.005 * checked  # a ray along an edge may fall to either side of it


def test_a_sequence_moves_smoothly_through_one_scene() -> None:
    found = sequence(1, 12, PAIRS, step=0.05)
    assert found.images.shape == (12, 48, 64, 3)
    assert found.images.dtype == np.uint8
    steps = np.linalg.norm(np.diff(found.poses[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.5
    assert steps.max() > 1e-3
    turns = [
        np.degrees(np.arccos(np.clip((np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2, -1, 1)))
        for a, b in zip(found.poses, found.poses[1:], strict=False)
    ]
    assert max(turns) < 20
    again = sequence(1, 12, PAIRS, step=0.05)
    assert np.array_equal(found.images, again.images)
    assert np.array_equal(found.depth, again.depth)
    with pytest.raises(SceneError, match="frames is 1"):
        sequence(1, 1, PAIRS)


def test_a_sheet_shows_pairs_with_their_depths(batch: PairBatch) -> None:
    sheet = picture_of(batch, columns=2)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (4 * (48 + 4), 2 * 2 * (2 * 64 + 4), 3)
    image = ((batch.first.images[0].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    assert np.array_equal(sheet[2:50, 2:66], image)


@pytest.mark.slow
def test_compiled_work_gives_the_same() -> None:
    plain, fast = (GeneratedPairs(replace(PAIRS, compile=compiled), seed=3).batch(0) for compiled in (False, True))
    same_depth = torch.isclose(plain.first.depth, fast.first.depth, rtol=1e-5, atol=1e-5).float().mean()
    same_colour = ((plain.first.images - fast.first.images).abs() < 0.1).float().mean()
    assert same_depth > 0.999
    assert same_colour > 0.99


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SceneConfig(weights={"cellar": 1.0}), "'cellar', which is no kind of scene: take room"),
        (lambda: SceneConfig(layer_size=100), "layer_size is 100: take a power of two"),
        (lambda: PairsConfig(overlap=(0.9, 0.2)), r"overlap is \(0.9, 0.2\): take two values, the lesser first"),
        (lambda: CameraEffects(noise=-1.0), "effects.noise is -1.0: take 0"),
        (lambda: GeneratedPairs(PAIRS, split="test"), "split is 'test': take train or held_out"),
    ],
)
def test_settings_out_of_range_are_refused_with_what_to_take(make: object, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        make()  # type: ignore[operator]
