"""What scenes are made of: ground, meshes, textures; and what a camera does to the light."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

from dust3r_ros.training.scenes import GeneratedPairs, PairsConfig, SceneConfig, SceneError, overlaps
from dust3r_ros.training.scenes.atlas import Atlas
from dust3r_ros.training.scenes.blur import blurred
from dust3r_ros.training.scenes.casting import first_triangle
from dust3r_ros.training.scenes.height_fields import height, march
from dust3r_ros.training.scenes.jpeg import jpeg
from dust3r_ros.training.scenes.meshes import load_meshes, to_unit_triangles
from dust3r_ros.training.scenes.textures import noise

PAIRS = PairsConfig(width=64, height=48, pairs=4, scene=SceneConfig(layer_size=64, noise_layers=4, pattern_layers=8, photo_layers=0))


def smooth_field() -> torch.Tensor:
    place = torch.arange(64) / 64 * 2 * torch.pi
    return (2 * torch.sin(2 * place)[:, None] * torch.cos(3 * place)[None])[None]


def test_a_march_ends_on_the_ground() -> None:
    field = smooth_field()
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(1, 3, 4000, generator=generator)
    direction[:, 2] = -direction[:, 2].abs()
    origin = torch.tensor([[[1.0], [2.0], [4.5]]])
    t = march(field, origin, direction)
    hit = torch.isfinite(t)
    assert hit.float().mean() > 0.8
    point = (origin + t[:, None] * direction)[:, :, hit[0]]
    ground, _, _ = height(field, point[:, 0], point[:, 1])
    assert (point[:, 2] - ground).abs().max() < 2e-5


def test_no_ground_lies_before_the_end_of_a_march() -> None:
    field = smooth_field()
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(1, 3, 500, generator=generator)
    direction[:, 2] = -0.3 * direction[:, 2].abs()
    origin = torch.tensor([[[1.0], [2.0], [4.5]]])
    t = march(field, origin, direction).clamp_max(20.0)
    share = torch.linspace(0.01, 0.99, 400)[:, None]
    x, y, z = (origin[:, axis] + share * t * direction[:, axis] for axis in range(3))
    inside = torch.maximum(x.abs(), y.abs()) < 38
    under = inside & (height(field, x.flatten()[None], y.flatten()[None])[0].view_as(x) > z + 1e-3)
    assert under.any(0).float().mean() < 0.02  # tips of ridges, thinner than a step


def test_slopes_are_those_of_the_heights() -> None:
    field = smooth_field().double()
    x, y = torch.rand(2, 1, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 60 - 30
    _, along_x, along_y = height(field, x, y)
    step = 1e-5
    torch.testing.assert_close(along_x, (height(field, x + step, y)[0] - height(field, x - step, y)[0]) / (2 * step), atol=1e-6, rtol=0)
    torch.testing.assert_close(along_y, (height(field, x, y + step)[0] - height(field, x, y - step)[0]) / (2 * step), atol=1e-6, rtol=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trimesh.creation.box((2.0, 4.0, 1.0)).export(tmp_path / "box.ply")
    trimesh.creation.icosphere(subdivisions=4).export(tmp_path / "ball.stl")
    (tmp_path / "broken.obj").write_text("v 0 0 zero\nf 1 1 1\n")
    return tmp_path


def test_meshes_stand_on_the_floor_at_unit_size_with_few_triangles(folder: Path) -> None:
    ball, box = load_meshes(folder, 200)
    for mesh in (ball, box):
        low, high = mesh.min((0, 1)), mesh.max((0, 1))
        np.testing.assert_allclose((high - low).max(), 1)
        np.testing.assert_allclose(low[2], 0, atol=1e-12)
        np.testing.assert_allclose((low + high)[:2], 0, atol=0.02)
    np.testing.assert_allclose(np.ptp(box, axis=(0, 1)), [0.5, 1, 0.25])
    there = np.ptp(ball, axis=1).max(1) > 0
    assert 80 < there.sum() <= 200
    radius = np.linalg.norm(ball[there] - [0, 0, 0.5], axis=-1)
    assert np.abs(radius - 0.5).max() < 0.06  # simplified, and still a ball


def test_rays_meet_triangles_where_moeller_and_trumbore_say() -> None:
    """Their formula of 1997, in float64."""
    corners = np.asarray(trimesh.creation.icosphere(subdivisions=2).triangles)
    rng = np.random.default_rng(0)
    origin, way = np.array([0.3, -3.0, 0.2]), np.array([0.0, 1.0, 0.0]) + 0.4 * rng.standard_normal((300, 3))
    maps = torch.from_numpy(to_unit_triangles(corners)).float()[None]
    t, _ = first_triangle(maps, torch.tensor(origin).float()[None, :, None], torch.tensor(way.T).float()[None])
    edge_1, edge_2, start = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], origin - corners[:, 0]
    across = np.cross(way[:, None], edge_2)
    determinant = (across * edge_1).sum(-1)
    u = (across * start).sum(-1) / determinant
    v = (np.cross(start, edge_1) * way[:, None]).sum(-1) / determinant
    distance = (np.cross(start, edge_1) * edge_2).sum(-1) / determinant
    truth = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0), distance, np.inf).min(1)
    agree = np.isclose(t[0].numpy(), truth, rtol=1e-5) | (np.isinf(t[0].numpy()) & np.isinf(truth))
    assert np.isfinite(truth).sum() > 30
    assert agree.mean() > 0.99


def test_a_folder_of_meshes_comes_into_the_scenes(folder: Path) -> None:
    plain = GeneratedPairs(PAIRS, seed=2).batch(0)
    source = GeneratedPairs(replace(PAIRS, scene=replace(PAIRS.scene, meshes=folder, mesh_share=1.0, mesh_triangles=64)), seed=2)
    batch = source.batch(0)
    assert batch.first.images.shape == plain.first.images.shape
    assert overlaps(batch).min() > 0.1
    with pytest.raises(SceneError, match="no mesh"):
        load_meshes(folder / "nowhere", 10)


def test_textures_are_read_where_they_lie_and_far_ones_are_their_mean() -> None:
    layers = [noise(64, np.random.default_rng(seed)) for seed in range(3)]
    atlas = Atlas(layers, {"noise": (0, 3)}, "cpu")
    texel = atlas.texels[64 * 64 + 5 * 64 + 9]  # layer 1, row 5, column 9

    def sample(level: float) -> torch.Tensor:
        place = [torch.tensor([[value]]) for value in (9.5 / 64 + 2, 5.5 / 64 - 1, level, 1.0)]
        return atlas.sample(torch.tensor([[1]]), *place)[0]

    torch.testing.assert_close(sample(0.0), texel, atol=1e-5, rtol=0)
    torch.testing.assert_close(sample(20.0), atlas.texels[64 * 64 : 2 * 64 * 64].mean(0), atol=2e-3, rtol=0)


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no picture"):
        Atlas.of(replace(PAIRS.scene, photos=tmp_path, photo_layers=4), "cpu")


def test_photographs_of_a_folder_become_textures(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((80, 120, 3), (20, 20, 200), np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    atlas = Atlas.of(replace(PAIRS.scene, photos=tmp_path, photo_layers=3), "cpu")
    first, count = atlas.groups["photo"]
    red = atlas.texels[first * 64 * 64 : (first + count) * 64 * 64].mean(0)
    assert count == 3
    assert red[0] > 10 * red[2]


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_does_to_a_picture_what_jpeg_files_do(quality: int) -> None:
    from PIL import Image

    picture = noise(96, np.random.default_rng(0))
    stored = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(stored, "JPEG", quality=quality, subsampling="4:2:0")
    truth = np.asarray(Image.open(stored), np.float32) / 255
    ours = jpeg(torch.from_numpy(picture).permute(2, 0, 1)[None], torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - truth).mean() < 0.25 * np.abs(truth - picture).mean() + 0.002


def test_blur_keeps_the_light_and_spreads_a_point() -> None:
    light = torch.zeros(3, 3, 15, 15)
    light[:, :, 7, 7] = 1
    result = blurred(light, torch.tensor([0.0, 1.5, 0.0]), torch.tensor([0.0, 0.0, 4.0]), torch.zeros(3))
    torch.testing.assert_close(result.sum((2, 3)), torch.ones(3, 3))
    torch.testing.assert_close(result[0], light[0])
    assert result[1, 0, 7, 8] == result[1, 0, 8, 7] > 0
    assert result[2, 0, 7, 9] > 0
    assert result[2, 0, 9, 7] == 0
