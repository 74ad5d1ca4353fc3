"""The node, the player and the recorder, each a process of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.truth import depth_error

from dust3r_ros.io.bags import BagWriter
from dust3r_ros.ros.recording import RecordedRun

PATIENCE = 60.0  # seconds; a fraction is enough on a quiet machine


class Running:
    """A process whose output goes into a file."""

    def __init__(self, log: Path, environment: dict[str, str], *command: str) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, "-u", "-m", *command], stdout=file, stderr=subprocess.STDOUT, env=environment)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def until_it_says(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            assert self.process.poll() is None, f"it ended: {self.said}"
            assert time.monotonic() < deadline, f"it never said '{text}' but: {self.said}"
            time.sleep(0.05)

    def end(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """start(module, *arguments) -> a process in a ROS domain of the test's own; ended with the test."""
    environment = {**os.environ, "ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 100)), "ROS_LOG_DIR": str(tmp_path / "log")}
    started: list[Running] = []

    def launch(module: str, *arguments: str) -> Running:
        started.append(Running(tmp_path / f"{len(started)}.log", environment, f"dust3r_ros.ros.{module}", *arguments))
        return started[-1]

    yield launch
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.fixture(scope="session")
def bag(views: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The views at 2 Hz."""
    path = tmp_path_factory.mktemp("bags") / "room"
    with BagWriter(path) as writer:
        for k, view in enumerate(views):
            stamp = views[0].stamp + k * 500_000_000
            writer.camera_info("/camera/camera_info", stamp, view.camera, "camera")
            writer.image("/camera/image_raw", stamp, view.image, "camera")
    return path


def test_a_played_bag_becomes_a_map_over_dds(start: Callable[..., Running], bag: Path, views: list, tmp_path: Path) -> None:
    output = tmp_path / "run.npz"
    recorder = start("recorder", str(output), "--idle", "4")
    recorder.until_it_says("recording /dust3r")
    node = start("main", "--ros-args", "-p", "estimator.size:=160", "-p", "estimator.model:=flow", "-p", "use_sim_time:=true")
    node.until_it_says("images from /camera/image_raw")
    player = start("player", str(bag), "--clock", "--wait-for-subscribers", "1")
    assert player.process.wait(PATIENCE) == 0, player.said
    assert f"{2 * len(views)} messages played" in player.said
    assert recorder.process.wait(PATIENCE) == 0, recorder.said
    assert node.process.poll() is None, node.said
    assert node.end(signal.SIGTERM) == 0, node.said
    assert "Traceback" not in node.said

    run = RecordedRun.load(output)
    stamps = {views[0].stamp + k * 500_000_000: view for k, view in enumerate(views)}
    assert len(run.depths) >= 2
    assert set(run.depths) == set(run.confidences) == set(run.cameras) <= set(stamps)
    assert all(depth.shape == view.image.shape[:2] for depth in run.depths.values() for view in views[:1])
    assert run.map is not None
    assert len(run.map) > 1000
    assert run.map_frame == "map"
    assert [stamp for stamp, _ in run.path] == sorted(stamps)[: len(run.path)]
    assert len(run.live_trajectory()) >= 3
    assert run.statuses[-1]["keyframes"] == len(run.keyframes) >= 2
    error, covered = depth_error(run.depths, run.confidences, {stamp: view.depth for stamp, view in stamps.items()})
    assert error < 0.15
    assert covered > 0.3


@pytest.fixture
def new_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on which nothing has been compiled yet."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "compiled"))


@pytest.mark.slow
@pytest.mark.usefixtures("new_machine")
def test_on_a_new_machine_it_listens_when_its_code_is_compiled(start: Callable[..., Running], views: list, tmp_path: Path) -> None:
    """Two images, half a second apart, are all there is: none may be missed."""
    path, output = tmp_path / "two", tmp_path / "run.npz"
    with BagWriter(path) as writer:
        for view in (views[0], views[2]):
            writer.camera_info("/camera/camera_info", view.stamp, view.camera, "camera")
            writer.image("/camera/image_raw", view.stamp, view.image, "camera")
    recorder = start("recorder", str(output), "--idle", "6")
    recorder.until_it_says("recording /dust3r")
    node = start("main", "--ros-args", "-p", "estimator.size:=160", "-p", "estimator.model:=flow")
    player = start("player", str(path), "--wait-for-subscribers", "1")
    assert player.process.wait(2 * PATIENCE) == 0, player.said
    assert recorder.process.wait(2 * PATIENCE) == 0, recorder.said
    assert node.said.index("compiling") < node.said.index("images from /camera/image_raw")
    assert len(RecordedRun.load(output).depths) == 2


def test_a_second_node_of_the_same_name_is_refused_in_one_line(start: Callable[..., Running]) -> None:
    first = start("main")
    first.until_it_says("images from")
    second = start("main")
    assert second.process.wait(PATIENCE) == 1
    assert second.said.count("another node is called /dust3r") == 1
    assert "__node:=" in second.said
    assert first.process.poll() is None
    other = start("main", "--ros-args", "-r", "__node:=left")
    other.until_it_says("images from")
    assert (first.end(signal.SIGINT), other.end(signal.SIGTERM)) == (0, 0)


@pytest.mark.parametrize(
    ("setting", "names"),
    [("map.voxel_size:=-1.0", "map.voxel_size"), ("keyframes.max_rate:=fast", "keyframes.max_rate"), ("window.scene_graph:=ring", "ring")],
)
def test_a_bad_parameter_ends_it_with_one_line(start: Callable[..., Running], setting: str, names: str) -> None:
    node = start("main", "--ros-args", "-p", setting)
    assert node.process.wait(PATIENCE) == 1
    (line,) = node.said.strip().splitlines()
    assert line.startswith("dust3r_node: ")
    assert names in line


def test_a_topic_that_cannot_be_listened_to_is_told_and_the_node_stays(start: Callable[..., Running]) -> None:
    node = start("main", "--ros-args", "-p", "image:=bad topic!")
    node.until_it_says("cannot be activated")
    assert "'bad topic!'" in node.said
    with pytest.raises(subprocess.TimeoutExpired):
        node.process.wait(1)
    assert node.end() == 0


def test_a_node_that_was_killed_can_start_again(start: Callable[..., Running]) -> None:
    first = start("main")
    first.until_it_says("images from")
    first.end(signal.SIGKILL)
    again = start("main")
    again.until_it_says("images from")
    assert again.end() == 0


def test_the_player_names_what_is_wrong_with_a_bag(start: Callable[..., Running], bag: Path, tmp_path: Path) -> None:
    truncated, imageless = tmp_path / "cut.mcap", tmp_path / "infos"
    whole = next(bag.glob("*.mcap")).read_bytes()
    truncated.write_bytes(whole[: len(whole) // 2])
    with BagWriter(imageless) as writer:
        from dust3r_ros.geometry import Camera

        writer.camera_info("/camera/camera_info", 1, Camera.from_fov(64, 48, 60), "camera")
    for path, says in ((tmp_path / "nowhere", "there is no bag"), (truncated, "cut.mcap"), (imageless, "/camera/camera_info")):
        player = start("player", str(path))
        assert player.process.wait(PATIENCE) == 1
        (line,) = player.said.strip().splitlines()
        assert says in line


def test_what_was_recorded_is_read_back_as_it_was(tmp_path: Path) -> None:
    run = RecordedRun(
        depths={5: np.ones((4, 6), np.float32)}, transforms=[(5, "map", "odom", np.eye(4)), (5, "odom", "base", 2 * np.eye(4))]
    )
    run.statuses.append({"state": 2, "reason": "well"})
    run.save(tmp_path / "run.npz")
    back = RecordedRun.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(back.depths[5], run.depths[5])
    assert back.statuses == run.statuses
    ((stamp, pose),) = back.live_trajectory()
    assert stamp == 5
    np.testing.assert_array_equal(pose, 2 * np.eye(4))
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
