"""The commands from end to end on a small bag: all files, readable by others, the same every time, and errors of one line."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from dust3r_ros.geometry import Similarity
from dust3r_ros.io import outputs
from dust3r_ros.io.bags import BagWriter
from dust3r_ros.io.meshes import MeshError
from dust3r_ros.io.outputs import map_folder
from dust3r_ros.io.point_clouds import read_ply
from dust3r_ros.io.settings_file import read_config
from dust3r_ros.io.trajectory import TrajectoryError, read_tum, write_tum
from dust3r_ros.mapping import ConfigError, Frame, Mapper, MapperConfig, settings, with_settings
from dust3r_ros.simulation import SimulatedView, room_sequence

SETTINGS = ["--set", "estimator.model=flow", "--set", "estimator.size=160", "--set", "keyframes.min_baseline=0.05"]


@pytest.fixture(scope="module")
def views() -> list[SimulatedView]:
    return list(room_sequence(frames=26, width=192, height=144, seed=5))


@pytest.fixture(scope="module")
def bag(views: list[SimulatedView], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "room"
    with BagWriter(path) as writer:
        for view in views:
            writer.camera_info("/camera/camera_info", view.stamp, view.camera)
            writer.image("/camera/image_raw", view.stamp, view.image)
    return path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dust3r_ros.cli", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def output(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "room"
    done = command("replay", bag, "--output", folder, *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    return folder


def test_exactly_the_promised_files(output: Path) -> None:
    names = {path.name for path in output.iterdir()}
    assert names == {"trajectory.tum", "map.ply", "map.glb", "depth", "cameras.json", "summary.json", "report.html"}


def test_the_trajectory_is_the_true_one(output: Path, views: list[SimulatedView]) -> None:
    trajectory = read_tum(output / "trajectory.tum")
    truth = {view.stamp: view.pose[:3, 3] for view in views}
    assert len(trajectory) > 0.8 * len(views)
    found = np.stack([pose[:3, 3] for _, pose in trajectory])
    true = np.stack([truth[stamp] for stamp, _ in trajectory])
    from evo.core.geometry import umeyama_alignment

    rotation, translation, scale = umeyama_alignment(found.T, true.T, with_scale=True)
    error = np.linalg.norm(scale * found @ rotation.T + translation - true, axis=1)
    assert error.max() < 0.05 * np.linalg.norm(np.ptp(true, axis=0))


def test_depth_pngs_are_the_true_depth_up_to_the_maps_scale(output: Path, views: list[SimulatedView]) -> None:
    cameras = json.loads((output / "cameras.json").read_text())["images"]
    truth = {f"{view.stamp // 10**9}.{view.stamp % 10**9:09d}": view for view in views}
    assert len(cameras) == len(list((output / "depth").iterdir())) >= 2
    scales = []
    for entry in cameras:
        view = truth[entry["stamp"]]
        depth = cv2.imread(str(output / entry["depth"]), cv2.IMREAD_UNCHANGED)
        assert depth.dtype == np.uint16
        assert depth.shape == view.depth.shape
        assert entry["camera"]["fx"] == pytest.approx(view.camera.fx)
        ratio = depth[depth > 0] / view.depth[depth > 0]
        scales.append(np.median(ratio))
        assert (depth > 0).mean() > 0.3
        assert np.abs(ratio / scales[-1] - 1).mean() < 0.08
    np.testing.assert_allclose(scales, np.median(scales), rtol=0.03)


def test_other_programs_read_the_map(output: Path) -> None:
    ours, theirs = read_ply(output / "map.ply"), trimesh.load(output / "map.ply")
    assert len(ours) > 1000
    np.testing.assert_allclose(theirs.vertices, ours.points, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(theirs.colors)[:, :3], ours.colors)
    scene = trimesh.load(output / "map.glb")
    assert sum(len(part.vertices) for part in scene.geometry.values() if isinstance(part, trimesh.PointCloud)) == len(ours)


def test_the_report_needs_nothing_else_and_tells_the_figures(output: Path) -> None:
    page = (output / "report.html").read_text()
    summary = json.loads((output / "summary.json").read_text())
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("data:image/jpeg") >= 3 + 3 * 2
    for figure in (summary["frames"], summary["keyframes"], f"{summary['map_points']:,}"):
        assert f"<b>{figure}</b>" in page
    assert summary["frames"] == 26
    assert summary["scale_source"] == "none"
    assert set(summary["seconds_per_stage"]) >= {"track", "encode", "estimate", "align"}


def test_replay_twice_gives_identical_files(output: Path, bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "compiled"))  # as on a new machine, where loops are compiled in the run itself
    assert command("replay", bag, "--output", tmp_path / "again", *SETTINGS).returncode == 0

    def digests(folder: Path) -> dict[str, str]:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("summary.json", "report.html")]
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert digests(output) == digests(tmp_path / "again")


def test_reconstruct_maps_a_folder_of_pictures(views: list[SimulatedView], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for k, view in enumerate(views[::3]):
        cv2.imwrite(str(tmp_path / "pictures" / f"{k}.png"), view.image[..., ::-1])
    done = command("reconstruct", tmp_path / "pictures", "-o", tmp_path / "out", "--fov", 62, *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert len(read_ply(tmp_path / "out" / "map.ply")) > 1000


def test_pictures_that_go_on_from_a_saved_map_come_after_it(views: list[SimulatedView], tmp_path: Path) -> None:
    for name, part in (("one", views[:20:2]), ("two", views[7::2])):
        (tmp_path / name).mkdir()
        for k, view in enumerate(part):
            cv2.imwrite(str(tmp_path / name / f"{k}.png"), view.image[..., ::-1])
    house = tmp_path / "maps" / "house.map"
    first = command("reconstruct", tmp_path / "one", "-o", tmp_path / "first", "--fov", 62, "--save-map", house, *SETTINGS)
    assert first.returncode == 0, first.stderr
    second = command("reconstruct", tmp_path / "two", "-o", tmp_path / "second", "--fov", 62, "--map", house, *SETTINGS)
    assert second.returncode == 0, second.stderr
    stamps = [stamp for stamp, _ in read_tum(tmp_path / "second" / "trajectory.tum")]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] > 10 * 10**9  # the first ten pictures' last stamp
    summary = json.loads((tmp_path / "second" / "summary.json").read_text())
    assert 0 < summary["frames_with_pose"] <= summary["frames"] == 10
    images = json.loads((tmp_path / "second" / "cameras.json").read_text())["images"]
    assert len({image["depth"] for image in images}) == len(images) > 1


@pytest.mark.parametrize(
    ("file", "says"), [("out/house.map", "lies in --output"), ("maps", "is a folder"), ("/proc/no/house.map", "cannot be written")]
)
def test_where_a_map_cannot_be_saved_is_said_before_the_run(bag: Path, tmp_path: Path, file: str, says: str) -> None:
    (tmp_path / "maps").mkdir()
    done = command("replay", bag, "-o", tmp_path / "out", "--save-map", tmp_path / file, *SETTINGS)
    assert done.returncode == 1
    assert says in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_mesh_that_cannot_be_made_costs_the_mesh_alone(
    views: list[SimulatedView], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "load_open3d", lambda: None)  # it is there at first; then it is not, or has no points
    settings = {"estimator.model": "flow", "estimator.size": 160, "keyframes.min_baseline": 0.05, "map.min_confidence": 1e6}
    mapper = Mapper(with_settings(MapperConfig(), settings))
    with map_folder(tmp_path / "out", "room", mapper, mesh=True) as writer:
        for view in views:
            writer.add(mapper.add(Frame(view.stamp, view.image, view.camera)))
    assert "no mesh.ply: " in caplog.text
    assert (tmp_path / "out" / "trajectory.tum").exists()
    assert not (tmp_path / "out" / "mesh.ply").exists()


def test_without_open3d_a_mesh_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with (
        pytest.raises(MeshError, match="pip install"),
        map_folder(tmp_path / "out", "room", Mapper(with_settings(MapperConfig(), {"estimator.model": "flow"})), mesh=True),
    ):
        pytest.fail("nothing is mapped")
    assert not list(tmp_path.iterdir())


def test_a_still_picture_has_no_map_and_an_earlier_one_stands(views: list[SimulatedView], tmp_path: Path) -> None:
    with BagWriter(tmp_path / "still") as writer:
        for k in range(5):
            writer.image("/image", (k + 1) * 10**8, views[0].image)
    (tmp_path / "out").mkdir()
    for name in ("map.ply", "summary.json", "trajectory.tum", "cameras.json"):
        (tmp_path / "out" / name).write_text("earlier")
    done = command("replay", tmp_path / "still", "-o", tmp_path / "out", *SETTINGS)
    assert done.returncode == 1
    assert "the camera must move" in done.stderr
    assert (tmp_path / "out" / "map.ply").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "still"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_what_was_there_and_nothing_else(views: list[SimulatedView], tmp_path: Path, number: signal.Signals) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        for k in range(40 * len(views)):  # back and forth, long enough to be stopped
            view = views[k % len(views)] if k // len(views) % 2 == 0 else views[-1 - k % len(views)]
            writer.image("/image", (k + 1) * 10**8, view.image)
    (tmp_path / "out").mkdir()
    for name in ("map.ply", "summary.json", "trajectory.tum", "cameras.json"):
        (tmp_path / "out" / name).write_text("earlier")
    run = subprocess.Popen(
        [sys.executable, "-m", "dust3r_ros.cli", "replay", str(tmp_path / "bag"), "-o", str(tmp_path / "out"), *SETTINGS],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while run.poll() is None and not list(tmp_path.glob(".out.*/depth/*.png")):
        time.sleep(0.05)
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 128 + number, errors
    assert errors.strip().splitlines()[-1] == "dust3r_ros: stopped; what was there before stands"
    assert (tmp_path / "out" / "map.ply").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "out"]


def test_images_of_which_none_can_be_used_say_why(views: list[SimulatedView], tmp_path: Path) -> None:
    with BagWriter(tmp_path / "tiny") as writer:
        for view in views[:3]:
            writer.image("/image", view.stamp, view.image[:8, :8])
    done = command("replay", tmp_path / "tiny", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "give uint8 RGB of at least 32x32 pixels" in done.stderr.strip().splitlines()[-1]


def test_every_nth_image_and_at_most_so_many(bag: Path, views: list[SimulatedView], tmp_path: Path) -> None:
    done = command("replay", bag, "-o", tmp_path / "out", "--every", 2, "--max-frames", 9, *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == 9
    stamps = [stamp for stamp, _ in read_tum(tmp_path / "out" / "trajectory.tum")]
    assert set(stamps) <= {view.stamp for view in views[:17:2]}


@pytest.mark.parametrize("place", ["foreign", "file", ".", "earlier"])
def test_a_folder_of_other_things_is_never_replaced(bag: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "earlier").mkdir()
    for name in ("trajectory.tum", "cameras.json", "summary.json", "house.map"):
        (tmp_path / "earlier" / name).write_text("of a run, and a map that somebody put there")
    done = command("replay", bag, "--output", place, *SETTINGS)
    assert done.returncode == 1
    assert "give" in done.stderr.strip().splitlines()[-1]
    assert (tmp_path / "foreign" / "thesis.tex").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier", "file", "foreign"]
    assert len(list((tmp_path / "earlier").iterdir())) == 4
    assert place != "earlier" or "house.map" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay", "/no/such/bag", "-o", "x"), "/no/such/bag does not exist"),
        (("reconstruct", "/no/such/folder", "-o", "x"), "/no/such/folder does not exist"),
        (("map", "info", "/no/such.map"), "/no/such.map does not exist"),
        (("compare", "/no/such.tum", "x"), "/no/such.tum cannot be read"),
    ],
)
def test_errors_are_one_line_and_a_code(arguments: tuple[str, ...], says: str) -> None:
    done = command(*arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_settings_from_files_and_the_command_line(tmp_path: Path) -> None:
    plain, node = tmp_path / "plain.yaml", tmp_path / "node.yaml"
    plain.write_text("window: {size: 5}\nkeyframes.max_rate: 3\n")
    node.write_text("/**:\n  ros__parameters:\n    image: /camera\n    window: {size: 6}\n")
    assert settings(read_config(plain, ["map.voxel_size=0.5"]))["map.voxel_size"] == 0.5
    assert settings(read_config(plain, []))["keyframes.max_rate"] == 3.0
    assert settings(read_config(node, []))["window.size"] == 6
    for wrong in (["window.size"], ["window.size=many"], ["windows.size=3"]):
        with pytest.raises(ConfigError, match=r"windows?\.size"):
            read_config(None, wrong)
    plain.write_text("{")
    with pytest.raises(ConfigError, match=r"plain\.yaml"):
        read_config(plain, [])


def test_tum_files_round_trip_and_name_the_wrong_line(tmp_path: Path) -> None:
    pose = np.array([[0.0, -1, 0, 1.5], [1, 0, 0, -2], [0, 0, 1, 3], [0, 0, 0, 1]])
    write_tum(tmp_path / "t", [(1_700_000_000_000_000_001, pose)])
    ((stamp, back),) = read_tum(tmp_path / "t")
    assert stamp == 1_700_000_000_000_000_001
    np.testing.assert_allclose(back, pose, atol=1e-6)
    for wrong in ("1 2 3", "one 2 3 4 0 0 0 1", "1 2 3 4 0 0 0 one", "2 0 0 0 0 0 0 0", "2 nan 0 0 0 0 0 1"):
        (tmp_path / "t").write_text(f"# comment\n{wrong}\n")
        with pytest.raises(TrajectoryError, match=r"line 2: (could not|3 numbers|quaternion|a pose of nan)"):
            read_tum(tmp_path / "t")


def test_depth_written_before_a_loop_is_closed_gets_the_size_of_its_keyframe(views: list[SimulatedView], tmp_path: Path) -> None:
    mapper = Mapper(
        with_settings(MapperConfig(), {"window.size": 3, "estimator.model": "flow", "estimator.size": 160, "keyframes.min_baseline": 0.03})
    )
    with map_folder(tmp_path / "out", "room", mapper) as writer:
        for view in views:
            writer.add(mapper.add(Frame(view.stamp, view.image, view.camera)))
        (file,) = sorted(writer.folder.glob("depth/*.png"))[:1]
        before = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        mapper.keyframe_map._store.move({0: Similarity(1.25, np.eye(3), np.zeros(3))})
    after = cv2.imread(str(tmp_path / "out" / "depth" / file.name), cv2.IMREAD_UNCHANGED)
    assert (before > 0).any()
    np.testing.assert_allclose(after[before > 0], 1.25 * before[before > 0], atol=1)
