"""Depth that was measured, kept until it is known which images became keyframes: a few pixels of each image."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import Camera
from dust3r_ros.mapping.types import Keyframe

Array = NDArray[np.float64]

MAX_PIXELS = 2000  # of one image
MAX_IMAGES = 400  # kept: the keyframes of a window among the newest others
NEAR = 20_000_000  # ns between a depth and the image that it belongs to, at most
MIN_CONFIDENCE = 1.5  # of the keyframe's own depth, from which a pixel counts


class DepthError(Dust3rError):
    """Measured depth that cannot be used."""


@dataclass(frozen=True, eq=False)
class DepthReading:
    """Pixels of the camera as shares of its width and height [N, 2], and what was measured there [N] metres along z."""

    places: Array
    metres: Array
    size: tuple[int, int]  # width and height of the measured image, pixels

    def beside(self, keyframe: Keyframe) -> tuple[Array, Array]:
        """(measured metres [M], the keyframe's depth in map units [M]) of the pixels that the keyframe knows with some confidence.

        Raises DepthError where the shapes of both images differ: they cannot be aligned.
        """
        source, camera = keyframe.source, keyframe.camera
        (width, height) = self.size
        if abs(width * source.height - height * source.width) > 0.02 * height * source.width:
            raise DepthError(
                f"measured depth of {width}x{height} is not aligned with the camera's image of {source.width}x{source.height}: "
                "register it to that camera (depth_image_proc/register), or set scale.source to leave it out"
            )
        pixels = self.places * (source.width, source.height) - 0.5
        rays = np.nan_to_num(source.unproject(pixels), nan=-1e6)  # a pixel without a ray lies outside every working image
        working = np.rint(np.nan_to_num(camera.project(rays), nan=-1.0).clip(-1, 1e6)).astype(int)
        inside = ((working >= 0) & (working < (camera.width, camera.height))).all(axis=1)
        columns, rows = working[inside].T
        known = (keyframe.depth[rows, columns] > 0) & (keyframe.confidence[rows, columns] >= MIN_CONFIDENCE)
        return self.metres[inside][known], keyframe.depth[rows, columns][known].astype(np.float64)


class DepthReadings:
    """The newest readings by their stamp (ns)."""

    def __init__(self) -> None:
        self._by_stamp: OrderedDict[int, DepthReading] = OrderedDict()

    def add(self, stamp: int, depth: NDArray[np.floating]) -> None:
        """[H, W] metres along z, aligned with the camera's image (of any size), 0 or not finite where nothing was measured.

        One range is an image with one pixel that is not 0. Raises DepthError for what is no such image.
        """
        if depth.ndim != 2 or not depth.size or depth.dtype.kind != "f":
            raise DepthError(f"measured depth of shape {depth.shape} and type {depth.dtype}: give [H, W] floating-point metres")
        with np.errstate(invalid="ignore"):
            known = np.flatnonzero((depth > 0) & np.isfinite(depth))
        if len(known) > MAX_PIXELS:
            known = np.sort(np.random.default_rng(0).choice(known, MAX_PIXELS, replace=False))
        if not len(known):
            return
        height, width = depth.shape
        places = np.stack([(known % width + 0.5) / width, (known // width + 0.5) / height], axis=1)
        self._by_stamp[stamp] = DepthReading(places, depth.reshape(-1)[known].astype(np.float64), (width, height))
        while len(self._by_stamp) > MAX_IMAGES:
            self._by_stamp.popitem(last=False)

    def at(self, stamp: int) -> DepthReading | None:
        """Of an image of this stamp: the nearest reading in time, if it is near."""
        if stamp in self._by_stamp:
            return self._by_stamp[stamp]
        nearest = min(self._by_stamp, key=lambda other: abs(other - stamp), default=None)
        return self._by_stamp[nearest] if nearest is not None and abs(nearest - stamp) <= NEAR else None


def depth_of_ranges(camera: Camera, pixels: ArrayLike, ranges: ArrayLike) -> NDArray[np.float32]:
    """[H, W] depth along z (metres) from a few ranges [N] (metres from the camera's centre) at pixels [N, 2] of the camera.

    For sonars, laser pointers and lidar points that were projected into the image. Raises DepthError if a pixel is outside of it.
    """
    where, metres = np.asarray(pixels, np.float64).reshape(-1, 2), np.asarray(ranges, np.float64).reshape(-1)
    if len(where) != len(metres):
        raise DepthError(f"{len(where)} pixels and {len(metres)} ranges: give one range for each pixel")
    at = np.rint(where)
    outside = ~((at >= 0) & (at < (camera.width, camera.height))).all(axis=1)
    if outside.any():
        raise DepthError(f"pixel {where[outside][0].tolist()} is outside the image of {camera.width}x{camera.height}: leave it out")
    rays = camera.unproject(where)
    depth = np.zeros((camera.height, camera.width), np.float32)
    columns, rows = at.astype(int).T
    depth[rows, columns] = np.nan_to_num(metres / np.linalg.norm(rays, axis=1), nan=0.0)
    return depth
