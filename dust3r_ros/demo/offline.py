"""The demo's run without ROS: the same bag, the same Mapper, no middleware."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.demo.recording import Recording
from dust3r_ros.io.bags import BagFrames
from dust3r_ros.mapping import Frame, Mapper, depth_image


def map_bag(bag: Path) -> Recording:
    """Every frame of the bag through a Mapper."""
    return map_frames(BagFrames(bag), Mapper())


def map_frames(given: Iterable[Frame], mapper: Mapper) -> Recording:
    """Every frame through a Mapper. A keyframe's depth is the last that the window said of it."""
    depths: dict[int, NDArray[np.float32]] = {}
    confidences: dict[int, NDArray[np.float32]] = {}
    seconds: dict[str, list[float]] = {}
    frames, start = 0, time.perf_counter()
    for frame in given:
        update = mapper.add(frame)
        frames += 1
        for stage, spent in update.seconds.items():
            seconds.setdefault(stage, []).append(spent)
        for keyframe in update.keyframes:
            depths[keyframe.stamp], confidences[keyframe.stamp] = depth_image(keyframe)
    rate = frames / max(time.perf_counter() - start, 1e-9)
    mean = {stage: float(np.mean(spent)) for stage, spent in seconds.items()}
    keyframes = [(keyframe.stamp, keyframe.pose) for keyframe in mapper.keyframes]
    return Recording(depths, confidences, mapper.trajectory(), mapper.cloud(), keyframes, frames, rate, mean)
