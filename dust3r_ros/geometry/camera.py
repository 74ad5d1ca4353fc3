"""A camera: its size, pinhole intrinsics in pixels and distortion. Pixel centres lie at integers (as in ROS and OpenCV)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dust3r_ros.geometry.distortion import distort, distort_angle, undistort, undistort_angle
from dust3r_ros.geometry.errors import GeometryError

DistortionModel = Literal["pinhole", "plumb_bob", "rational_polynomial", "equidistant"]

COEFFICIENTS: dict[str, tuple[int, ...]] = {"pinhole": (0,), "plumb_bob": (0, 4, 5), "rational_polynomial": (0, 8), "equidistant": (4,)}
MIN_Z = 1e-3  # the z of a unit ray below which it counts as sideways: at z = 1 it would be a thousand away


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one camera. `assumed` says that nobody measured them (a guessed field of view).

    `distortion` is k1 k2 p1 p2 [k3] for plumb_bob (Brown-Conrady), k1 k2 p1 p2 k3 k4 k5 k6 for rational_polynomial, both as OpenCV's calib
    module has them, and k1 k2 k3 k4 for equidistant, as cv2.fisheye has them. Raises GeometryError for values that no camera can have.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: DistortionModel = "pinhole"
    distortion: tuple[float, ...] = ()
    assumed: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            object.__setattr__(self, name, _size(name, getattr(self, name)))
        for name in ("fx", "fy", "cx", "cy"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in ("fx", "fy"):
            if getattr(self, name) <= 0:
                raise GeometryError(f"camera: {name} is {getattr(self, name):g}: a focal length in pixels is above 0; calibrate the camera")
        if self.model not in get_args(DistortionModel):
            raise GeometryError(f"camera: unknown distortion model {self.model!r}: known are {', '.join(get_args(DistortionModel))}")
        distortion = tuple(_number("distortion coefficient", value) for value in self.distortion)
        if len(distortion) not in COEFFICIENTS[self.model]:
            wanted = " or ".join(map(str, COEFFICIENTS[self.model]))
            raise GeometryError(f"camera: {len(distortion)} distortion coefficients for model '{self.model}': it takes {wanted}")
        object.__setattr__(self, "distortion", distortion)

    @classmethod
    def from_fov(cls, width: int, height: int, fov_degrees: float) -> Camera:
        """A camera that nobody measured: square pixels, centred, `fov_degrees` across its width."""
        if not 0 < fov_degrees < 180:
            raise GeometryError(f"field of view of {fov_degrees} degrees: give one between 0 and 180")
        focal = width / 2 / math.tan(math.radians(fov_degrees) / 2)
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, assumed=True)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """[3, 3] K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def is_pinhole(self) -> bool:
        """Whether straight lines stay straight: no distortion, or all of it zero. (Equidistant never is.)"""
        return self.model != "equidistant" and not any(self.distortion)

    def pinhole(self) -> Camera:
        """The same intrinsics without distortion."""
        return replace(self, model="pinhole", distortion=())

    def resized(self, width: int, height: int) -> Camera:
        """The camera of this one's image resized to width x height: u -> (u + 0.5) s - 0.5."""
        width, height = _size("width", width), _size("height", height)
        sx, sy = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        return replace(self, width=width, height=height, fx=self.fx * sx, fy=self.fy * sy, cx=cx, cy=cy)

    def cropped(self, x: int, y: int, width: int, height: int) -> Camera:
        """The camera of this one's image cut to width x height pixels from (x, y) on; GeometryError if that is not inside the image."""
        if x < 0 or y < 0 or x + width > self.width or y + height > self.height:
            raise GeometryError(f"crop of {width}x{height} at ({x}, {y}) is not inside the image of {self.width}x{self.height}: cut less")
        return replace(self, width=width, height=height, cx=self.cx - x, cy=self.cy - y)

    def pixel_grid(self) -> NDArray[np.float64]:
        """[H, W, 2] every pixel's own (u, v)."""
        u, v = np.meshgrid(np.arange(self.width, dtype=np.float64), np.arange(self.height, dtype=np.float64))
        return np.stack([u, v], axis=-1)

    def rays(self) -> NDArray[np.float32]:
        """[H, W, 3] the ray of each pixel, z = 1, undistorted; NaN as in `unproject`. Times depth along z they are points."""
        return self.unproject(self.pixel_grid()).astype(np.float32)

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """[..., 3] points in this camera's frame -> [..., 2] pixels (u, v), which may lie outside the image.

        NaN for what this camera cannot see at any image size: behind it (for equidistant: beyond its largest angle, which may be over 90
        degrees) or so far out that the distortion model folds back.
        """
        points = _last_axis(points, 3, "points")
        flat = points.reshape(-1, 3)
        z = flat[:, 2]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.model == "equidistant":
                radius = np.hypot(flat[:, 0], flat[:, 1])
                stretched = distort_angle(np.arctan2(radius, z), self.distortion)
                # On the axis the ratio's limit is 1 / z; at the centre itself and straight behind there is no pixel.
                ratio = np.where(radius > 0, stretched / radius, np.where(z > 0, 0.0, np.nan))
                xy = flat[:, :2] * ratio[:, None]
            else:
                xy = np.where(z[:, None] > 0, flat[:, :2] / z[:, None], np.nan)
                if not self.is_pinhole:
                    xy = distort(xy, self.distortion)
        return (xy * (self.fx, self.fy) + (self.cx, self.cy)).reshape(*points.shape[:-1], 2)

    def unproject(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """[..., 2] pixels (u, v) -> [..., 3] rays with z = 1 in this camera's frame, undistorted.

        NaN where no such ray exists: pixels past 90 degrees of an equidistant camera, or outside what the distortion model can reach.
        """
        pixels = _last_axis(pixels, 2, "pixels")
        xy = (pixels.reshape(-1, 2) - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.model == "equidistant":
            radius = np.linalg.norm(xy, axis=1)
            theta = undistort_angle(radius, self.distortion)
            stretched = np.tan(np.where(theta < math.pi / 2 - MIN_Z, theta, np.nan))
            xy = xy * np.divide(stretched, radius, out=np.ones_like(radius), where=radius > 0)[:, None]
        elif not self.is_pinhole:
            xy = undistort(xy, self.distortion)
        rays = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
        return np.where(np.isfinite(xy).all(axis=1, keepdims=True), rays, np.nan).reshape(*pixels.shape[:-1], 3)

    def contains(self, pixels: ArrayLike) -> NDArray[np.bool_]:
        """[..., 2] pixels -> [...] whether they lie on the image (its outer pixels reach half a pixel beyond their centres)."""
        pixels = _last_axis(pixels, 2, "pixels")
        limits = np.array([self.width, self.height]) - 0.5
        return np.asarray(((pixels >= -0.5) & (pixels < limits)).all(axis=-1))


def _size(name: str, value: Any) -> int:
    if isinstance(value, bool) or not float(value).is_integer() or value <= 0:
        raise GeometryError(f"camera: {name} is {value}: give a whole number of pixels above 0")
    return int(value)


def _number(name: str, value: Any) -> float:
    if not math.isfinite(value):
        raise GeometryError(f"camera: {name} is {value}: calibrate the camera, or leave the calibration out to have one assumed")
    return float(value)


def _last_axis(values: ArrayLike, size: int, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim == 0 or array.shape[-1] != size:
        raise GeometryError(f"{name} of shape {array.shape}: the last axis has {size} entries")
    return array
