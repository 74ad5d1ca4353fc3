"""The node with a network: from a file of weights to depth, cloud and TF. Random weights: the map is nonsense, the path is real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dust3r_ros_msgs.msg import Status
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from support.networks import SMALL, small_weights
from support.regenerated import regenerated
from support.rig import LATCHED
from tf2_msgs.msg import TFMessage

from dust3r_ros.network import save_network
from dust3r_ros.simulation import room_sequence


def runs_the_whole_path(running, name: str, views: list) -> None:
    heard = {
        topic: running.listen(kind, topic, *qos)
        for kind, topic, *qos in (
            (TFMessage, "/tf"),
            (Image, "~/depth/image"),
            (CameraInfo, "~/depth/camera_info"),
            (PointCloud2, "~/cloud"),
            (PointCloud2, "~/map", LATCHED),
            (Status, "~/status"),
        )
    }
    running.show(views)
    running.until(lambda: all(heard.values()), "everything has come out")
    running.until(lambda: heard["~/status"][-1].keyframes >= 2, "two keyframes are counted")
    assert heard["~/status"][-1].model == name
    depth, info = heard["~/depth/image"][-1], heard["~/depth/camera_info"][-1]
    assert (depth.width, depth.height) == (info.width, info.height) == (views[0].camera.width, views[0].camera.height)
    assert list(info.k) == pytest.approx(views[0].camera.matrix.ravel().tolist())
    assert running.node.book.now.unusable == 0


def test_a_small_network_runs_the_whole_path(rig, views: list, tmp_path: Path) -> None:
    weights = small_weights(tmp_path, replace(SMALL, image_size=160))
    running = rig(**{"estimator.weights": str(weights), "estimator.precision": "float32", "publish.cloud_min_confidence": 1.0})
    runs_the_whole_path(running, "small", views)


def test_weights_that_cannot_be_had_leave_the_node_unconfigured(rig, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    running = rig(activate=False, **{"estimator.weights": str(tmp_path / "gone.safetensors")})
    assert running.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "there is no such file" in capfd.readouterr().err


@pytest.mark.slow
def test_a_published_architecture_runs_the_whole_path(rig, tmp_path: Path) -> None:
    """dust3r_512_dpt with regenerated weights, 2.3 GB, at a quarter of its pixels."""
    weights = tmp_path / "model.safetensors"
    save_network(regenerated("dust3r_512_dpt"), weights)
    running = rig(
        **{
            "estimator.model": "dust3r_512_dpt",
            "estimator.weights": str(weights),
            "estimator.size": 224,
            "publish.cloud_min_confidence": 1.0,
            "map.min_confidence": 1.0,
        }
    )
    runs_the_whole_path(running, "dust3r_512_dpt", list(room_sequence(12, 320, 240)))
