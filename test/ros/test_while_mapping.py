"""A keyframe that takes for ever: the camera's place goes on meanwhile, image by image."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from support.rig import CAMERA_FRAME, image_message
from support.simulated_estimator import SimulatedEstimator
from tf2_msgs.msg import TFMessage

from dust3r_ros.mapping import Frame, Localiser, Mapper, with_settings
from dust3r_ros.ros.conversion import camera_info_message, from_time, matrix_from_transform, to_header
from dust3r_ros.simulation import SimulatedView, circle_sequence

SETTINGS = {"window.size": 4, "window.scene_graph": "swin-2", "map.voxel_size": 0.02}
BEFORE, MEANWHILE, AFTER = 24, 10, 6


class Gated(SimulatedEstimator):
    """Estimates when it is let."""

    def __init__(self, *given: object, **more: object) -> None:
        super().__init__(*given, **more)  # type: ignore[arg-type]
        self.open, self.waits = threading.Event(), threading.Event()
        self.open.set()

    def estimate(self, *given: object) -> list:
        if not self.open.is_set():
            self.waits.set()
            assert self.open.wait(60)
        return super().estimate(*given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def walk() -> list[SimulatedView]:
    sequence = circle_sequence(150, 160, 120)
    return [replace(sequence[k], stamp=sequence[0].stamp + k * 100_000_000) for k in range(BEFORE + 40 + MEANWHILE + AFTER)]


@pytest.mark.parametrize("mode", ["mapping", "localisation"])
def test_transforms_go_on_while_a_picture_is_estimated_and_do_not_jump_when_it_is_there(rig, mode: str, walk: list[SimulatedView]) -> None:
    estimator = Gated(walk, size=160)
    running = rig(**SETTINGS, mode=mode)
    config = with_settings(running.node.mapper.config, {})
    mapper = Mapper(config, estimator, background=True)
    if mode == "mapping":
        running.node.mapper = mapper
    else:
        for view in walk[::3]:
            mapper.add(Frame(view.stamp, view.image, view.camera))
        running.node.mapper = Localiser(config, estimator, mapper.snapshot())
    heard = running.listen(TFMessage, "/tf")
    coming = iter(walk)
    running.show([next(coming) for _ in range(BEFORE)])
    estimator.open.clear()

    def show_one() -> int:
        """Without waiting for the map."""
        view, tracked = next(coming), running.node.book.now.frames
        running._infos.publish(camera_info_message(view.camera, to_header(view.stamp, CAMERA_FRAME)))
        running._images.publish(image_message(view.image, view.stamp))
        running.until(lambda: running.node.book.now.frames > tracked, "the image is tracked")
        return view.stamp

    while not estimator.waits.is_set():  # until an image is due as a keyframe, or to be placed anew
        show_one()
        running.until(lambda: estimator.waits.is_set() or running.node.threads.front.is_idle, "the map is at it, or has nothing to do")
    meanwhile = {show_one() for _ in range(MEANWHILE)}

    def placed() -> dict[int, np.ndarray]:
        found = [t for message in heard for t in message.transforms if t.header.frame_id == "odom"]
        return {from_time(t.header.stamp): matrix_from_transform(t.transform) for t in found}

    running.until(lambda: meanwhile <= set(placed()), "each of them has its transform")
    assert not running.node.threads.front.is_idle  # and the map is still at it
    keyframes = running.node.book.now.keyframes
    estimator.open.set()
    running.until(running.node.is_idle, "the map has done it")
    assert running.node.book.now.keyframes == keyframes + (mode == "mapping")
    last = [show_one() for _ in range(AFTER)][-1]
    running.until(lambda: last in placed(), "the last transform is heard")
    steps = np.array([np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in pairwise(placed().values())])
    assert steps.max() < 2.5 * np.median(steps)
