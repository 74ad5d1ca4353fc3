"""What the demo looks at, with the truth about it: a real stereo pair and a simulated walk. Metres; poses camera to world, OpenCV axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import Camera
from dust3r_ros.io.bags import BagWriter
from dust3r_ros.simulation import SimulatedView, room_sequence

IMAGE_TOPIC, INFO_TOPIC, FRAME_ID = "/camera/image_raw", "/camera/camera_info", "camera"

# Middlebury 2014 (Scharstein et al., GCPR 2014), "Motorcycle-perfect": calibration of the full-size pair, 2964x2000. The benchmark's own
# "Motorcycle" (2964x1988) is another rectification of the same photographs, with other numbers.
_FOCAL, _CX_LEFT, _CX_RIGHT, _CY = 3979.911, 1244.772, 1369.115, 1019.507  # pixels
_BASELINE = 0.193001  # m
_SHRUNK = 4  # scikit-image ships means of 4x4 pixels
_MOTORCYCLE_START, _MOTORCYCLE_GAP = 1_600_000_000_000_000_000, 500_000_000  # ns


class DemoError(Dust3rError):
    """The demo cannot run, or what it measured is not sane."""


@dataclass(frozen=True, eq=False)
class TrueView:
    """One image and what is true of it."""

    stamp: int  # nanoseconds
    image: NDArray[np.uint8]  # [H, W, 3] RGB
    camera: Camera
    pose: NDArray[np.float64]  # [4, 4]
    depth: NDArray[np.float32] | None  # [H, W] along z, 0 where it is not known; None: not known at all


def room(frames: int = 60, width: int = 640, height: int = 480) -> Iterator[TrueView]:
    """The simulated walk through a furnished room."""
    views: Sequence[SimulatedView] = room_sequence(frames, width, height)
    for view in views:
        yield TrueView(view.stamp, view.image, view.camera, view.pose, view.depth)


def motorcycle() -> list[TrueView]:
    """The Middlebury motorcycle as scikit-image ships it (741x500): a left and a right photograph, 19.3 cm apart.

    The principal points differ between the two, so each view has its own camera. Depth is known for the left view only.
    """
    try:
        from skimage.data import stereo_motorcycle
    except ImportError as error:
        raise DemoError("the motorcycle pair comes with scikit-image, which is missing: pip install scikit-image") from error
    left, right, disparity = stereo_motorcycle()
    height, width = left.shape[:2]
    first, second = (
        Camera(width, height, _FOCAL / _SHRUNK, _FOCAL / _SHRUNK, (cx + 0.5) / _SHRUNK - 0.5, (_CY + 0.5) / _SHRUNK - 0.5)
        for cx in (_CX_LEFT, _CX_RIGHT)
    )
    moved = np.eye(4)
    moved[0, 3] = _BASELINE
    depth = disparity_to_depth(disparity, first.fx, _BASELINE, second.cx - first.cx)
    return [
        TrueView(_MOTORCYCLE_START, np.ascontiguousarray(left[..., :3]), first, np.eye(4), depth),
        TrueView(_MOTORCYCLE_START + _MOTORCYCLE_GAP, np.ascontiguousarray(right[..., :3]), second, moved, None),
    ]


def disparity_to_depth(disparity: NDArray[np.floating], focal: float, baseline: float, offset: float) -> NDArray[np.float32]:
    """Depth `baseline * focal / (disparity + offset)` in the baseline's unit, 0 where the disparity is not finite.

    `offset` is how much further right the right camera's principal point lies, in pixels.
    """
    known = np.isfinite(disparity) & (disparity + offset > 0)
    depth = np.zeros(disparity.shape, np.float32)
    depth[known] = baseline * focal / (disparity[known] + offset)
    return depth


def write_bag(path: Path, views: Sequence[TrueView]) -> None:
    """Images and their cameras as a rosbag2 (mcap)."""
    with BagWriter(path) as bag:
        for view in views:
            bag.camera_info(INFO_TOPIC, view.stamp, view.camera, FRAME_ID)
            bag.image(IMAGE_TOPIC, view.stamp, view.image, FRAME_ID)
