"""Which frames can be used."""

from __future__ import annotations

import numpy as np

from dust3r_ros.errors import Dust3rError
from dust3r_ros.mapping.types import Frame


class FrameError(Dust3rError):
    """A frame that cannot be used."""


class StampError(FrameError):
    """A frame that is not newer than the one before it."""


def check_frame(frame: Frame, last_stamp: int | None) -> None:
    """Raises FrameError for an unusable image or camera, StampError for a frame that is not newer than `last_stamp` (ns)."""
    shape = frame.image.shape
    if frame.image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < 32:
        raise FrameError(f"image of shape {shape} and type {frame.image.dtype}: give uint8 RGB of at least 32x32 pixels")
    if frame.camera is not None and (frame.camera.width, frame.camera.height) != (shape[1], shape[0]):
        size = f"{frame.camera.width}x{frame.camera.height}"
        raise FrameError(f"the camera is {size} but its image {shape[1]}x{shape[0]}: resize the camera with the image or leave it out")
    if last_stamp is not None and frame.stamp <= last_stamp:
        ago = (last_stamp - frame.stamp) * 1e-9
        raise StampError(
            f"stamp {frame.stamp * 1e-9:.3f} s is {ago:.3f} s before the last frame's: frames must be in order; reset() starts anew"
        )
