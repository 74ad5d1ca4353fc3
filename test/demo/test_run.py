"""The demo in small: without ROS, and through the node where ROS is there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dust3r_ros.demo import live
from dust3r_ros.demo.__main__ import main
from dust3r_ros.demo.inputs import DemoError, TrueView, room, write_bag
from dust3r_ros.demo.measure import Bounds, depth_score, path_score
from dust3r_ros.demo.run import Act, run
from dust3r_ros.models.shipped import shipped_weights

SMALL = Act("room", "a short walk", lambda: list(room(24, 160, 120)), Bounds(0.2, 0.2, 15.0, 0.5), True)


def test_offline_it_maps_measures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "demo"
    run(output, is_offline=True, acts=[SMALL])
    figures = json.loads((output / "summary.json").read_text())["room"]
    assert figures["images_with_pose"] == figures["images_handled"] == 24
    assert 0 < figures["depth_abs_rel"] < 0.2
    assert 0 < figures["ate_percent_of_extent"] < 15
    assert (output / "room" / "map.glb").read_bytes()[:4] == b"glTF"
    assert {"depth.png", "path.png", "cloud_from_above.png"} <= {file.name for file in (output / "room").iterdir()}
    report = (output / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 5 + (shipped_weights() is not None)  # what the shipped model makes of pairs
    assert 'src="http' not in report
    assert str(output / "report.html") in capsys.readouterr().out.replace("\n", "")
    run(output, is_offline=True, acts=[SMALL])  # over its own earlier output


def test_results_out_of_bounds_fail_it(tmp_path: Path) -> None:
    strict = Act("room", "a short walk", SMALL.views, Bounds(0.0, 1.1, 0.0), True)
    with pytest.raises(DemoError, match=r"room: depth error .*; room: depth covers .*; room: trajectory error .* see .*report.html"):
        run(tmp_path / "demo", is_offline=True, acts=[strict])
    assert (tmp_path / "demo" / "report.html").is_file()


def test_a_camera_that_stands_still_fails_it(tmp_path: Path) -> None:
    def still() -> list[TrueView]:
        view = next(room(1, 160, 120))
        return [replace(view, stamp=view.stamp + 10**8 * k) for k in range(4)]

    with pytest.raises(DemoError, match="nothing was mapped"):
        run(tmp_path / "demo", is_offline=True, acts=[Act("still", "no motion", still, Bounds(1, 0), True)])


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DemoError, match="holds something else"):
        run(tmp_path, is_offline=True, acts=[SMALL])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_command_ends_with_one_line_and_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").touch()
    assert main(["--offline", "--output", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.ros
def test_through_the_node_poses_and_depth_agree_with_the_truth(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    pytest.importorskip("dust3r_ros_msgs")
    views = list(room(24, 320, 240))
    write_bag(tmp_path / "bag", views)
    recording = live.map_bag(tmp_path / "bag", tmp_path)
    assert 2 <= len(recording.keyframes) <= recording.frames <= 24
    assert depth_score(recording, views).abs_rel < 0.15
    score = path_score(recording, views)
    assert score.percent < 15
    # Where the cloud lies is where the room is: in front of the cameras, within the walls.
    assert recording.cloud is not None
    inside = np.abs(score.to_truth.apply(recording.cloud.points.astype(float))) < [2.9, 2.6, 3.0]
    assert inside.all(axis=1).mean() > 0.9
