"""What a hand-held camera sees while it moves through the room: images and their exact truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry.camera import Camera
from dust3r_ros.simulation.room import room

FIELD_OF_VIEW = 62.0  # degrees, horizontal
PERIOD = 100_000_000  # ns between frames: 10 Hz
START = 1_700_000_000_000_000_000  # ns, stamp of the first frame
SPEED = 0.40  # m/s along the path
EXPOSURE, NOISE = 1.25, 0.006  # gain; standard deviation of the sensor's noise at mid-grey (1 = white)


@dataclass(frozen=True, eq=False)
class SimulatedView:
    """One image and all that is true of it."""

    stamp: int  # nanoseconds
    image: NDArray[np.uint8]  # [H, W, 3] RGB
    depth: NDArray[np.float32]  # [H, W] metres along z, at the pixels' centres
    pose: NDArray[np.float64]  # [4, 4] camera to world (z up), OpenCV axes
    camera: Camera


class RoomSequence(Sequence[SimulatedView]):
    """Views rendered when asked for; asking twice gives the same view."""

    def __init__(self, frames: int, width: int, height: int, seed: int) -> None:
        if frames < 0 or width < 8 or height < 8:
            raise ValueError(
                f"a sequence of {frames} frames of {width}x{height} pixels cannot be rendered: at least 0 frames of 8x8 pixels"
            )
        focal = width / 2 / math.tan(math.radians(FIELD_OF_VIEW) / 2)
        self.camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        self._frames, self._seed = frames, seed

    def __len__(self) -> int:
        return self._frames

    @overload
    def __getitem__(self, index: int) -> SimulatedView: ...
    @overload
    def __getitem__(self, index: slice) -> list[SimulatedView]: ...
    def __getitem__(self, index: int | slice) -> SimulatedView | list[SimulatedView]:
        if isinstance(index, slice):
            return [self._render(k) for k in range(*index.indices(self._frames))]
        if not -self._frames <= index < self._frames:
            raise IndexError(f"frame {index} of {self._frames}")
        return self._render(index % self._frames)

    def __iter__(self) -> Iterator[SimulatedView]:
        return (self._render(k) for k in range(self._frames))

    def _render(self, index: int) -> SimulatedView:
        scene = room(_density(self.camera), self._seed)
        pose = camera_pose(index * PERIOD * 1e-9)
        light = scene.radiance(self.camera, pose) * np.float32(EXPOSURE)
        rng = np.random.default_rng([self._seed, 7, index])
        return SimulatedView(START + index * PERIOD, _expose(light, rng), scene.depth(self.camera, pose), pose, self.camera)


def room_sequence(frames: int = 60, width: int = 640, height: int = 480, seed: int = 0) -> Sequence[SimulatedView]:
    """`frames` views at 10 Hz of a furnished room, from a camera that moves sideways on an arc, looking inward, about 4 cm a frame.

    Frame k is the same whatever `frames` is. `seed` changes paint, books and sensor noise; the geometry of the rest and the path stay.
    Pictures on the walls are scikit-image's where it is installed, else painted. Views are rendered lazily: iterate once, or keep them.
    """
    return RoomSequence(frames, width, height, seed)


def camera_pose(seconds: float) -> NDArray[np.float64]:
    """Camera to world (4x4) after so many seconds: round an ellipse that starts as a sideways arc, with the sway of a hand."""
    angle = math.radians(-54.0) + SPEED / 1.3 * seconds

    def sway(*frequencies: float) -> float:
        return sum(math.sin(2 * math.pi * f * seconds + 7.3 * f) for f in frequencies) / len(frequencies)

    position = np.array([1.3 * math.sin(angle), -1.55 - 0.38 * math.cos(angle), 1.32 + 0.10 * math.sin(0.9 * seconds)])
    position += 0.008 * np.array([sway(0.7, 1.3), sway(0.9, 1.7), sway(0.8, 1.9)])
    target = np.array([0.15 * math.sin(angle), 1.55, 0.88]) + 0.02 * np.array([sway(0.31, 0.83), 0.0, sway(0.43, 1.1)])
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = 0.015 * sway(0.37, 0.9)
    pose = np.eye(4)
    pose[:3, 0] = math.cos(roll) * right + math.sin(roll) * down
    pose[:3, 1] = -math.sin(roll) * right + math.cos(roll) * down
    pose[:3, 2] = forward
    pose[:3, 3] = position
    return pose


def _density(camera: Camera) -> float:
    """Texels a metre so that the nearest things (1.2 m) are still drawn about one texel a ray of two a pixel; bounded for memory."""
    return float(np.clip(round(camera.fx * 0.65), 40, 400))


def _expose(light: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Linear light to 8-bit sRGB-like values: a shoulder before white, gamma 2.2, a little Gaussian noise."""
    toned = light * (1 + light / 6.25) / (1 + light)  # Reinhard 2002, white at 2.5
    level = np.clip(toned, 0, 1) ** np.float32(1 / 2.2)
    level = level + rng.standard_normal(level.shape, np.float32) * np.float32(NOISE)
    return np.clip(np.rint(level * 255), 0, 255).astype(np.uint8)
