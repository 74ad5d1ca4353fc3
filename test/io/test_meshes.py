"""The surface of a map, where Open3D is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dust3r_ros.io.meshes import MeshError, surface_points, write_mesh
from dust3r_ros.mapping import PointCloud


def loads() -> bool:
    try:
        return importlib.util.find_spec("open3d") is not None and bool(__import__("open3d"))
    except (OSError, ImportError):
        return False


needs_open3d = pytest.mark.skipif(not loads(), reason="Open3D is not installed or lacks a system library")


def bowl() -> tuple[PointCloud, np.ndarray]:
    """The inside of the lower half of a unit sphere with a few strays, seen from its centre."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20_000, 3))
    points[:, 2] = -np.abs(points[:, 2])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = np.concatenate([points, rng.uniform(-3, 3, (40, 3))]).astype(np.float32)
    colors = np.tile(np.array([200, 100, 50], np.uint8), (len(points), 1))
    return PointCloud(points, colors, np.full(len(points), 5, np.float32)), np.zeros((3, 3))


@needs_open3d
def test_the_surface_lies_on_the_points_and_keeps_their_colour(tmp_path: Path) -> None:
    write_mesh(tmp_path / "m.ply", *bowl())
    mesh = trimesh.load(tmp_path / "m.ply")
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert len(mesh.faces) > 1000
    assert np.quantile(np.abs(radius - 1), 0.95) < 0.02
    assert np.abs(mesh.visual.vertex_colors[:, :3].mean(axis=0) - [200, 100, 50]).max() < 5


@needs_open3d
def test_strays_go_and_normals_look_at_the_camera() -> None:
    cloud, positions = bowl()
    points, normals = surface_points(cloud, positions)
    place = np.asarray(points.points)
    assert (np.abs(np.linalg.norm(place, axis=1) - 1) < 0.05).mean() > 0.9995
    assert (np.einsum("ni,ni->n", np.asarray(normals), -place) > 0.9).mean() > 0.99


def test_without_open3d_or_points_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = PointCloud(np.zeros((3, 3), np.float32), np.zeros((3, 3), np.uint8), np.ones(3, np.float32))
    if loads():
        with pytest.raises(MeshError, match="too few"):
            write_mesh(tmp_path / "m.ply", few, np.zeros((1, 3)))
    monkeypatch.setitem(__import__("sys").modules, "open3d", None)
    with pytest.raises(MeshError, match=r"pip install 'dust3r_ros\[mesh\]'"):
        write_mesh(tmp_path / "m.ply", few, np.zeros((1, 3)))
