"""From a camera's own picture to an undistorted one of another size, and maps on that one back into the camera's own pixels."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.geometry.camera import Camera
from dust3r_ros.geometry.errors import GeometryError

Map = NDArray[np.float32]

MAX_FOV = 120.0  # degrees: a flat picture wider than that is mostly stretched edge
SHRINK = 1.2  # source pixels per target pixel from which on they are averaged first, so that nothing aliases
OUTSIDE = -10000.0  # a place that no image has; OpenCV's maps reach to 32767


def working_camera(source: Camera, longer_side: int) -> Camera:
    """The pinhole camera that pictures of `source` are worked on with; its longer side is exactly `longer_side` pixels.

    Without distortion it is `source` resized. With it, the field of view is the widest (at most 120 degrees) that has no pixel outside the
    source's picture; the principal point stays at the same share of the image.
    """
    if longer_side < 1:
        raise GeometryError(f"working image of {longer_side} pixels: give a size above 0")
    scale = longer_side / max(source.width, source.height)
    target = source.resized(max(1, round(source.width * scale)), max(1, round(source.height * scale))).pinhole()
    if source.is_pinhole:
        return target
    border = np.concatenate([target.pixel_grid()[[0, -1]].reshape(-1, 2), target.pixel_grid()[:, [0, -1]].reshape(-1, 2)])
    rays = (border - (target.cx, target.cy)) / (target.fx, target.fy)
    widest = np.tan(np.radians(MAX_FOV / 2)) / np.abs(rays).max()

    def fits(stretch: float) -> bool:
        inner = np.concatenate([rays * stretch * share for share in (0.25, 0.5, 0.75, 1.0)])
        return bool(source.contains(source.project(np.concatenate([inner, np.ones((len(inner), 1))], axis=1))).all())

    low, high = 0.0, float(widest)
    if not fits(high):
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        high = low * (1 - 1e-6)  # off the very edge, where rounding decides
    if high <= 0:
        raise GeometryError(f"no undistorted view inside the picture of {source}: check its principal point and distortion")
    return replace(target, fx=target.fx / high, fy=target.fy / high)


class Rectification:
    """Between `source` (any model) and `target` (pinhole) of the same centre and axes: only the lens and the grid differ.

    A point's depth along z is therefore the same in both. The maps are computed once per pair of cameras and shared.
    """

    def __init__(self, source: Camera, target: Camera) -> None:
        if not target.is_pinhole:
            raise GeometryError(f"rectification to a camera of model '{target.model}': the target is a pinhole camera without distortion")
        self.source, self.target = source, target

    def image(self, image: NDArray[Any]) -> NDArray[Any]:
        """[H, W] or [H, W, C] of the source's size, uint8 or float32 -> the same of the target's: undistorted, averaged where it shrinks.

        Black (0) where the source does not see. Raises GeometryError for an image of another size.
        """
        _check_size(image, self.source, "image")
        resize, size, maps = _to_target(self.source, self.target)
        if resize:  # the whole way is a resize
            return image.copy() if size == _shape(image) else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        if size != _shape(image):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.remap(image, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0))

    def to_source(self, values: NDArray[Any], interpolation: Literal["nearest", "bilinear"] = "nearest", fill: float = 0.0) -> NDArray[Any]:
        """[h, w] or [h, w, C] on the target's pixels (uint8, uint16, int16, float32) -> the same in the source's own pixels and size.

        `fill` where the source's pixel is outside the target's view. "nearest" takes values as they are: for depth, where 0 means unknown
        and a mean over an edge is a place where nothing is. Raises GeometryError for a map of another size.
        """
        _check_size(values, self.target, "map")
        maps, inside = _to_source(self.source, self.target, interpolation == "nearest")
        flag = cv2.INTER_NEAREST if interpolation == "nearest" else cv2.INTER_LINEAR
        found = np.asarray(cv2.remap(values, maps[..., 0], maps[..., 1], flag, borderMode=cv2.BORDER_REPLICATE))
        found[~inside] = fill
        return found


@lru_cache(maxsize=16)
def _to_target(source: Camera, target: Camera) -> tuple[bool, tuple[int, int], Map]:
    """Whether a plain resize does it all; the size (w, h) to average the source's image to first; [h, w, 2] where to look in that."""
    pixels = source.project(target.unproject(target.pixel_grid()))  # float64: the border may be the source's own to the last digit
    resized = source.pinhole().resized(target.width, target.height)
    whole = source.is_pinhole and np.allclose([*_numbers(resized)], [*_numbers(target)], rtol=1e-6, atol=1e-3)
    if whole and target.width <= source.width and target.height <= source.height:
        return True, (target.width, target.height), np.empty((0, 0, 2), np.float32)
    shrink_x, shrink_y = _shrink(pixels)
    size = (max(1, round(source.width / shrink_x)), max(1, round(source.height / shrink_y)))
    maps = (pixels + 0.5) * np.divide(size, (source.width, source.height)) - 0.5
    inside = source.contains(pixels)
    limits = np.subtract(size, 1.0)
    # Half a pixel beyond the outer centres is still the picture's own pixel; without the clip it would be mixed with black.
    maps = np.where(inside[..., None], np.clip(maps, 0.0, limits), OUTSIDE)
    return False, size, _frozen(maps)


@lru_cache(maxsize=16)
def _to_source(source: Camera, target: Camera, nearest: bool) -> tuple[Map, NDArray[np.bool_]]:
    """[H, W, 2] where in the target's map each source pixel looks, and [H, W] whether the target sees it."""
    pixels = target.project(source.unproject(source.pixel_grid()))
    inside = target.contains(pixels)
    pixels = np.where(inside[..., None], np.rint(pixels) if nearest else pixels, OUTSIDE)
    pixels = np.where(inside[..., None], np.clip(pixels, 0.0, (target.width - 1, target.height - 1)), OUTSIDE)
    inside.flags.writeable = False
    return _frozen(pixels), inside


def _shrink(pixels: NDArray[np.float64]) -> tuple[float, float]:
    """Source pixels per target pixel along x and y, the median over the picture; 1 where it does not shrink enough to alias."""
    along_x = np.linalg.norm(np.diff(pixels, axis=1), axis=-1)
    along_y = np.linalg.norm(np.diff(pixels, axis=0), axis=-1)
    found = [float(np.nanmedian(steps)) if np.isfinite(steps).any() else 1.0 for steps in (along_x, along_y)]
    shrink_x, shrink_y = (step if step >= SHRINK else 1.0 for step in found)
    return shrink_x, shrink_y


def _numbers(camera: Camera) -> tuple[float, float, float, float]:
    return camera.fx, camera.fy, camera.cx, camera.cy


def _shape(image: NDArray[Any]) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _check_size(image: NDArray[Any], camera: Camera, name: str) -> None:
    if image.ndim not in (2, 3) or image.shape[:2] != (camera.height, camera.width):
        raise GeometryError(f"{name} of shape {image.shape} for a camera of {camera.width}x{camera.height}: give one of the camera's size")


def _frozen(maps: NDArray[np.float64]) -> Map:
    found = np.ascontiguousarray(maps, np.float32)
    found.flags.writeable = False
    return found
