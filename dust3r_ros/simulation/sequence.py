"""Image sequences with their exact truth: a scene, a camera's path through it, and the views, rendered when asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry.camera import Camera
from dust3r_ros.simulation.scene import Scene

FIELD_OF_VIEW = 62.0  # degrees, horizontal
PERIOD = 100_000_000  # ns between frames: 10 Hz
START = 1_700_000_000_000_000_000  # ns, stamp of the first frame
BAND = 8  # rows of a rolling shutter that are rendered from one pose
EXPOSURE, NOISE = 1.25, 0.006  # gain; standard deviation of the sensor's noise at mid-grey (1 = white)

Place = Callable[[float, int], Scene]  # texels a metre and the seed to the scene
Path = Callable[[float], NDArray[np.float64]]  # frame, or a moment between two, to the camera's pose


@dataclass(frozen=True, eq=False)
class SimulatedView:
    """One image and all that is true of it."""

    stamp: int  # nanoseconds
    image: NDArray[np.uint8]  # [H, W, 3] RGB
    depth: NDArray[np.float32]  # [H, W] metres along z, at the pixels' centres
    pose: NDArray[np.float64]  # [4, 4] camera to world (z up), OpenCV axes
    camera: Camera


class SimulatedSequence(Sequence[SimulatedView]):
    """Views rendered when asked for; asking twice gives the same view. `depth` and `pose` alone cost no picture."""

    def __init__(self, frames: int, width: int, height: int, seed: int, place: Place, path: Path, readout: float = 0.0) -> None:
        """`readout`: seconds from the first row to the last; depth and pose are those of the middle row's time."""
        if frames < 0 or width < 8 or height < 8:
            raise ValueError(
                f"a sequence of {frames} frames of {width}x{height} pixels cannot be rendered: at least 0 frames of 8x8 pixels"
            )
        focal = width / 2 / math.tan(math.radians(FIELD_OF_VIEW) / 2)
        self.camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        self._frames, self._seed, self._place, self._path, self._readout = frames, seed, place, path, readout

    def __len__(self) -> int:
        return self._frames

    @overload
    def __getitem__(self, index: int) -> SimulatedView: ...
    @overload
    def __getitem__(self, index: slice) -> list[SimulatedView]: ...
    def __getitem__(self, index: int | slice) -> SimulatedView | list[SimulatedView]:
        if isinstance(index, slice):
            return [self._render(k) for k in range(*index.indices(self._frames))]
        return self._render(self._checked(index))

    def __iter__(self) -> Iterator[SimulatedView]:
        return (self._render(k) for k in range(self._frames))

    def pose(self, index: int) -> NDArray[np.float64]:
        """[4, 4], as the view's."""
        return self._path(self._checked(index))

    def depth(self, index: int) -> NDArray[np.float32]:
        """[H, W], as the view's."""
        return self._scene().depth(self.camera, self.pose(index))

    def _checked(self, index: int) -> int:
        if not -self._frames <= index < self._frames:
            raise IndexError(f"frame {index} of {self._frames}")
        return index % self._frames

    def _scene(self) -> Scene:
        return self._place(_density(self.camera), self._seed)

    def _render(self, index: int) -> SimulatedView:
        light, depth = self._seen(index)
        rng = np.random.default_rng([self._seed, 7, index])
        return SimulatedView(START + index * PERIOD, _expose(light, rng), depth, self._path(index), self.camera)

    def _seen(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Light [H, W, 3] and depth [H, W]."""
        scene, pose = self._scene(), self._path(index)
        light = self._band_by_band(scene, index) if self._readout else scene.radiance(self.camera, pose)
        return light * np.float32(EXPOSURE), scene.depth(self.camera, pose)

    def _band_by_band(self, scene: Scene, index: int) -> NDArray[np.float32]:
        bands = []
        for top in range(0, self.camera.height, BAND):
            rows = min(BAND, self.camera.height - top)
            share = (top + (rows - 1) / 2) / (self.camera.height - 1) - 0.5
            moment = index + share * self._readout / (PERIOD * 1e-9)
            bands.append(scene.radiance(self.camera.cropped(0, top, self.camera.width, rows), self._path(moment)))
        return np.concatenate(bands)


def camera_at(position: NDArray[np.float64], forward: NDArray[np.float64], roll: float = 0.0) -> NDArray[np.float64]:
    """Camera to world (4x4) at `position`, looking along `forward` (any length, not straight up), upright but for `roll` radians."""
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
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
