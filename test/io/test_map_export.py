"""Saved maps for other programs, read back by their own rules; the commands from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from click.testing import Result
from typer.testing import CliRunner

from dust3r_ros.cli import CommandError, app
from dust3r_ros.geometry import Camera, inverse_pose, matrix_from_quaternion, pose_matrix
from dust3r_ros.io.atomic import OutputError
from dust3r_ros.io.bags import BagWriter
from dust3r_ros.io.colmap import colmap_camera, write_colmap
from dust3r_ros.io.colmap_tracks import observations
from dust3r_ros.io.map_export import ExportError, export_map
from dust3r_ros.io.map_file import MapFileError, load_map, save_map
from dust3r_ros.io.point_clouds import read_ply, write_ply
from dust3r_ros.io.trajectory import read_tum
from dust3r_ros.mapping import Frame, Mapper, MapperConfig, MapSnapshot, with_settings
from dust3r_ros.mapping.config import MapConfig
from dust3r_ros.mapping.types import PointCloud
from dust3r_ros.simulation import SimulatedView, room_sequence

CHANGES = {"estimator.size": 160, "keyframes.min_baseline": 0.04, "window.size": 3, "estimator.model": "flow"}
CONFIG = with_settings(MapperConfig(), CHANGES)
SETTINGS = [word for name, value in CHANGES.items() for word in ("--set", f"{name}={value}")]
COARSE = ["--set", "map.voxel_size=0.03"]


def command(*arguments: object) -> Result:
    """In this process: what turns errors into one line and a code is tested beside the other commands."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(frames=26, width=192, height=144, seed=5))


@pytest.fixture(scope="module")
def place(views: list[SimulatedView], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bag, and the maps and the clouds of its first and of its last part."""
    place = tmp_path_factory.mktemp("maps")
    with BagWriter(place / "bag") as writer:
        for view in views:
            writer.camera_info("/camera/camera_info", view.stamp, view.camera)
            writer.image("/camera/image_raw", view.stamp, view.image)
    for name, part in (("early", views[:18]), ("late", views[8:])):
        mapper = Mapper(CONFIG)
        for view in part:
            mapper.add(Frame(view.stamp, view.image, view.camera))
        save_map(place / f"{name}.map", mapper.snapshot())
        write_ply(place / f"{name}.ply", mapper.cloud())
    return place


@pytest.fixture(scope="module")
def snapshot(place: Path) -> MapSnapshot:
    return load_map(place / "early.map")


def test_info_says_what_is_in_it(place: Path, snapshot: MapSnapshot) -> None:
    done = command("map", "info", place / "early.map")
    assert done.exit_code == 0, done.exception
    assert f"{len(snapshot.keyframes)} keyframes (3 in the window)" in done.stdout
    assert "version 3" in done.stdout
    assert "pieces" not in done.stdout
    assert f"{len(snapshot.links)} links" in done.stdout
    assert "scale: none" in done.stdout


def test_info_tells_of_pieces_and_of_the_readout(snapshot: MapSnapshot, tmp_path: Path) -> None:
    save_map(tmp_path / "m.map", replace(snapshot, pieces=(snapshot, snapshot), readout=0.02))
    done = command("map", "info", tmp_path / "m.map")
    count = len(snapshot.keyframes)
    assert f"2 pieces seen by a lost camera, not joined yet, of {count}, {count} keyframes" in done.stdout
    assert "20.0 ms" in done.stdout


def test_points_come_out_as_the_run_had_them(place: Path, tmp_path: Path) -> None:
    done = command("map", "export", place / "early.map", "-o", tmp_path / "x.ply")
    assert done.exit_code == 0, done.exception
    points = len(read_ply(tmp_path / "x.ply"))
    assert f"{points:,} points" in done.stdout
    assert points == pytest.approx(len(read_ply(place / "early.ply")), rel=0.01)
    assert command("map", "export", place / "early.map", "-o", tmp_path / "x.ply", *COARSE).exit_code == 0
    assert len(read_ply(tmp_path / "x.ply")) < points / 3


def test_glb_and_tum(snapshot: MapSnapshot, tmp_path: Path) -> None:
    export_map(snapshot, tmp_path / "x.glb", MapConfig(voxel_size=0.03))
    scene = trimesh.load(tmp_path / "x.glb")
    assert any(isinstance(part, trimesh.PointCloud) and len(part.vertices) > 500 for part in scene.geometry.values())
    assert "poses" in export_map(snapshot, tmp_path / "x.tum", MapConfig())
    trajectory = read_tum(tmp_path / "x.tum")
    assert [stamp for stamp, _ in trajectory] == [keyframe.stamp for keyframe in snapshot.keyframes]
    np.testing.assert_allclose([pose for _, pose in trajectory], [keyframe.pose for keyframe in snapshot.keyframes], atol=1e-6)


def test_a_rigs_cameras_are_told_apart(snapshot: MapSnapshot, tmp_path: Path) -> None:
    """Two cameras that are triggered together: their keyframes have equal stamps."""
    one, other = snapshot.keyframes[0], snapshot.keyframes[1]
    both = [replace(one, name="left"), replace(other, name="right", stamp=one.stamp), replace(snapshot.keyframes[2], name="left")]
    rig = replace(snapshot, keyframes=tuple(both), window=())
    export_map(rig, tmp_path / "sparse", MapConfig(voxel_size=0.03))
    lines = [line for line in (tmp_path / "sparse" / "images.txt").read_text().splitlines() if not line.startswith("#")]
    names = [line.split()[-1] for line in lines[::2]]
    assert [name.split("/")[0] for name in names] == ["left", "right", "left"]
    assert names[0].split("/")[1] == names[1].split("/")[1]
    assert export_map(rig, tmp_path / "x.tum", MapConfig()).endswith("2 poses")
    assert [stamp for stamp, _ in read_tum(tmp_path / "x.tum")] == [one.stamp, both[2].stamp]


def test_a_file_is_not_cut_to_what_a_running_map_may_hold(snapshot: MapSnapshot, tmp_path: Path) -> None:
    rng, count = np.random.default_rng(0), 250_000  # in one tile: a map that is being made holds 200,000 of them
    cloud = PointCloud(
        rng.random((count, 3)).astype(np.float32), np.full((count, 3), 99, np.uint8), rng.uniform(3, 9, count).astype(np.float32)
    )
    dense = replace(snapshot, cloud=cloud, owners=np.zeros(count, np.int32), window=(), voxel_size=1e-4)
    save_map(tmp_path / "dense.map", dense)
    for words, least, most in (([], count - 100, count), (["--set", "map.max_points=100000"], 1000, 100_000)):
        done = command("map", "export", tmp_path / "dense.map", "-o", tmp_path / "x.ply", "--set", "map.voxel_size=1e-4", *words)
        assert done.exit_code == 0, done.exception
        assert least <= len(read_ply(tmp_path / "x.ply")) <= most


def test_colmaps_text_model_by_colmaps_rules(snapshot: MapSnapshot, tmp_path: Path) -> None:
    export_map(snapshot, tmp_path / "sparse", MapConfig(voxel_size=0.03))
    (camera,) = [line.split() for line in (tmp_path / "sparse" / "cameras.txt").read_text().splitlines() if not line.startswith("#")]
    assert camera[:4] == ["1", "PINHOLE", "192", "144"]
    fx, fy, cx, cy = map(float, camera[4:])
    assert (cx, cy) == (96.0, 72.0)  # COLMAP's pixel centres lie at halves: the middle is half the size
    lines = [line for line in (tmp_path / "sparse" / "images.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 2 * len(snapshot.keyframes)
    points = np.array([line.split()[1:4] for line in (tmp_path / "sparse" / "points3D.txt").read_text().splitlines()[1:]], float)
    assert len(points) > 500
    for line, keyframe in zip(lines[::2], snapshot.keyframes, strict=True):
        number, qw, qx, qy, qz, *move, of, name = line.split()
        assert (int(number) > 0, of) == (True, "1")
        assert name == f"{keyframe.stamp // 10**9}.{keyframe.stamp % 10**9:09d}.png"
        to_camera = pose_matrix(matrix_from_quaternion([float(v) for v in (qx, qy, qz, qw)]), [float(v) for v in move])
        np.testing.assert_allclose(inverse_pose(to_camera), keyframe.pose, atol=1e-9)
        seen = points @ to_camera[:3, :3].T + to_camera[:3, 3]
        ahead = seen[:, 2] > 0
        u, v = fx * seen[ahead, 0] / seen[ahead, 2] + cx, fy * seen[ahead, 1] / seen[ahead, 2] + cy
        assert ((u > 0) & (u < 192) & (v > 0) & (v < 144)).mean() > 0.4  # the map is what its pictures show


def test_colmaps_tracks_say_the_same_from_both_sides(snapshot: MapSnapshot, tmp_path: Path) -> None:
    """By colmap.github.io/format.html: a point's track names a picture and the place of the observation in that picture's list."""
    export_map(snapshot, tmp_path / "sparse", MapConfig(voxel_size=0.03))
    model = {name: (tmp_path / "sparse" / f"{name}.txt").read_text().splitlines() for name in ("cameras", "images", "points3D")}
    fx, fy, cx, cy = map(float, model["cameras"][1].split()[4:])
    pictures = [line for line in model["images"] if not line.startswith("#")]
    listed = {
        int(head.split()[0]): np.array(row.split(), float).reshape(-1, 3) for head, row in zip(pictures[::2], pictures[1::2], strict=True)
    }
    to_camera = {k: inverse_pose(keyframe.pose) for k, keyframe in enumerate(snapshot.keyframes, start=1)}
    told, errors, lengths = 0, [], []
    for line in model["points3D"][1:]:
        number, x, y, z, *_, error = (float(word) for word in line.split()[:8])
        track = np.array(line.split()[8:], int).reshape(-1, 2)
        lengths.append(len(track))
        assert len(set(track[:, 0])) == len(track) != 1
        off = []
        for picture, place in track:
            u, v, back = listed[picture][place]
            assert back == number
            a, b, c = to_camera[picture][:3, :3] @ (x, y, z) + to_camera[picture][:3, 3]
            off.append(np.hypot(fx * a / c + cx - u, fy * b / c + cy - v))
        if off:
            assert np.mean(off) == pytest.approx(error, abs=0.02)
            errors.append(error)
        told += len(track)
    assert told == sum(len(rows) for rows in listed.values())
    assert np.mean(np.array(lengths) >= 2) > 0.5  # most points are seen from several places
    assert np.median(errors) < 2.0  # half a pixel of the small pictures, which have 80 of these 192


def test_a_point_behind_something_has_no_track(snapshot: MapSnapshot) -> None:
    keyframes = snapshot.keyframes[:2]
    middle = keyframes[0].camera.height // 2, keyframes[0].camera.width // 2
    ray = keyframes[0].camera.rays()[middle] * keyframes[0].depth[middle]
    shown, hidden = (keyframes[0].pose[:3, :3] @ (share * ray) + keyframes[0].pose[:3, 3] for share in (1.0, 1.5))
    seen = observations(np.stack([shown, hidden]), [keyframes[0], keyframes[0]])
    assert set(seen.point.tolist()) == {0}
    assert len(observations(np.zeros((0, 3)), keyframes)) == 0
    assert len(observations(np.stack([shown]), [])) == 0


@pytest.mark.parametrize(
    ("camera", "model", "values"),
    [
        (Camera(8, 6, 5.0, 5.5, 3.5, 2.5), "PINHOLE", (5.0, 5.5, 4.0, 3.0)),
        (Camera(8, 6, 5, 5, 3, 2, "plumb_bob", (0.1, 0.2, 0.3, 0.4, 0.0)), "OPENCV", (5, 5, 3.5, 2.5, 0.1, 0.2, 0.3, 0.4)),
        (
            Camera(8, 6, 5, 5, 3, 2, "plumb_bob", (0.1, 0.2, 0.3, 0.4, 0.5)),
            "FULL_OPENCV",
            (5, 5, 3.5, 2.5, 0.1, 0.2, 0.3, 0.4, 0.5, 0, 0, 0),
        ),
        (
            Camera(8, 6, 5, 5, 3, 2, "rational_polynomial", (1, 2, 3, 4, 5, 6, 7, 8)),
            "FULL_OPENCV",
            (5, 5, 3.5, 2.5, 1, 2, 3, 4, 5, 6, 7, 8),
        ),
        (Camera(8, 6, 5, 5, 3, 2, "equidistant", (0.0, 0.0, 0.0, 0.0)), "OPENCV_FISHEYE", (5, 5, 3.5, 2.5, 0, 0, 0, 0)),
    ],
)
def test_lenses_keep_their_numbers(camera: Camera, model: str, values: tuple[float, ...]) -> None:
    assert colmap_camera(camera) == (model, 8, 6, values)


def test_a_folder_of_other_things_and_unknown_endings_are_refused(snapshot: MapSnapshot, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match="something else"):
        write_colmap(tmp_path / "work", snapshot.keyframes, snapshot.cloud)
    assert (tmp_path / "work" / "thesis.tex").read_text() == "years"
    with pytest.raises(ExportError, match=r"ends in \.las: give one of \.ply"):
        export_map(snapshot, tmp_path / "x.las", MapConfig())
    nothing = MapSnapshot((), (), snapshot.cloud, ())
    with pytest.raises(ExportError, match="without keyframes"):
        export_map(nothing, tmp_path / "x.ply", MapConfig())
    assert {path.name for path in tmp_path.iterdir()} == {"work"}


def test_two_maps_become_one_file(place: Path, tmp_path: Path) -> None:
    done = command("map", "merge", place / "early.map", place / "late.map", "-o", tmp_path / "both.map", *SETTINGS)
    assert done.exit_code == 0, done.exception
    both = load_map(tmp_path / "both.map")
    parts = [load_map(place / f"{name}.map") for name in ("early", "late")]
    assert len(both.keyframes) == sum(len(part.keyframes) for part in parts)
    assert f"{len(both.keyframes)} keyframes" in done.stdout


def test_merging_with_what_is_no_map_says_so(place: Path, tmp_path: Path) -> None:
    done = command("map", "merge", place / "early.map", place / "early.ply", "-o", tmp_path / "both.map", *SETTINGS)
    assert isinstance(done.exception, MapFileError)
    assert "early.ply is not a dust3r_ros map" in str(done.exception)
    assert not (tmp_path / "both.map").exists()


def replay(*arguments: object) -> None:
    command = [sys.executable, "-m", "dust3r_ros.cli", "replay", *map(str, arguments), *SETTINGS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_replay_localises_in_a_saved_map_and_leaves_it(place: Path, views: list[SimulatedView], tmp_path: Path) -> None:
    before = (place / "early.map").read_bytes()
    replay(place / "bag", "-o", tmp_path / "out", "--map", place / "early.map", "--localise", "--save-map", tmp_path / "same.map")
    assert (place / "early.map").read_bytes() == (tmp_path / "same.map").read_bytes() == before
    trajectory = dict(read_tum(tmp_path / "out" / "trajectory.tum"))
    keyframes = load_map(place / "early.map").keyframes
    for keyframe in keyframes:
        assert np.linalg.norm(trajectory[keyframe.stamp][:3, 3] - keyframe.pose[:3, 3]) < 0.02
    assert len(trajectory) > 0.8 * len(views)  # between the keyframes too
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["keyframes"] == len(keyframes)
    assert list((tmp_path / "out" / "depth").iterdir()) == []


def test_replay_goes_on_with_a_saved_map(place: Path, tmp_path: Path) -> None:
    replay(place / "bag", "-o", tmp_path / "out", "--map", place / "early.map", "--save-map", tmp_path / "more.map")
    more, early = load_map(tmp_path / "more.map"), load_map(place / "early.map")
    assert {k.index for k in early.keyframes} < {k.index for k in more.keyframes}
    assert len(more.links) > len(early.links)


def test_localising_needs_a_map(place: Path, tmp_path: Path) -> None:
    done = command("replay", place / "bag", "-o", tmp_path / "out", "--localise")
    assert isinstance(done.exception, CommandError)
    assert "--map FILE" in str(done.exception)
