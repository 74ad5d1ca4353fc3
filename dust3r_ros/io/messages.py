"""sensor_msgs to numpy: Image, CompressedImage and CameraInfo, and geometry_msgs' poses, by their fields alone.

Works on the messages of rclpy and of rosbags alike, and needs neither. Rows may be padded (`step`) and values big-endian.
"""

from __future__ import annotations

import math
import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dust3r_ros.errors import Dust3rError
from dust3r_ros.geometry import Camera, DistortionModel, GeometryError, matrix_from_quaternion, pose_matrix


class MessageError(Dust3rError):
    """A message that cannot be decoded."""


# encoding: (bytes a channel, channels, OpenCV conversion to RGB or None)
_COLOUR: dict[str, tuple[int, int, int | None]] = {
    "rgb8": (1, 3, None),
    "8UC3": (1, 3, cv2.COLOR_BGR2RGB),  # OpenCV's own order
    "bgr8": (1, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (1, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (1, 4, cv2.COLOR_BGRA2RGB),
    "8UC4": (1, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": (2, 3, None),
    "bgr16": (2, 3, cv2.COLOR_BGR2RGB),
    "rgba16": (2, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": (2, 4, cv2.COLOR_BGRA2RGB),
    "mono16": (2, 1, cv2.COLOR_GRAY2RGB),
    "16UC1": (2, 1, cv2.COLOR_GRAY2RGB),
    # OpenCV names a Bayer pattern by its second row: ROS's RGGB is OpenCV's BG.
    "bayer_rggb8": (1, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, 1, cv2.COLOR_BayerGB2RGB),
    "bayer_rggb16": (2, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": (2, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": (2, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": (2, 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (1, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (1, 2, cv2.COLOR_YUV2RGB_YUY2),
}
_OF_BYTES = {1: "mono8", 2: "mono16 or yuv422", 3: "rgb8 or bgr8", 4: "rgba8 or bgra8", 6: "rgb16 or bgr16", 8: "rgba16 or bgra16"}
_PLANAR = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
_MODELS: dict[str, tuple[DistortionModel, int]] = {
    "plumb_bob": ("plumb_bob", 5),
    "rational_polynomial": ("rational_polynomial", 8),
    "equidistant": ("equidistant", 4),
    "fisheye": ("equidistant", 4),
}


def decode_image(message: Any) -> NDArray[np.uint8]:
    """sensor_msgs/Image or CompressedImage to (H, W, 3) uint8 RGB. Raises MessageError, which names what is wrong."""
    if not hasattr(message, "encoding"):
        return _decompressed(message)
    if message.encoding in _PLANAR:
        return _planar(message)
    if message.encoding not in _COLOUR:
        raise MessageError(f"image encoding '{message.encoding}' is not supported: publish one of {', '.join([*_COLOUR, *_PLANAR])}")
    width, channels, conversion = _COLOUR[message.encoding]
    pixels = _pixels(message, np.dtype(np.uint16 if width == 2 else np.uint8), channels)
    if message.encoding == "16UC1":  # no fixed white: the brightest pixel is
        pixels = (pixels * (255.0 / max(int(pixels.max()), 1))).astype(np.uint8)
    rgb = pixels if conversion is None else cv2.cvtColor(pixels, conversion)
    return np.ascontiguousarray(rgb >> 8 if rgb.dtype == np.uint16 else rgb, np.uint8)


def decode_depth(message: Any) -> NDArray[np.float32]:
    """A depth Image (16UC1 or mono16 in millimetres, 32FC1 in metres) to (H, W) float32 metres; 0 where nothing is known."""
    if message.encoding in ("16UC1", "mono16"):
        return _pixels(message, np.dtype(np.uint16), 1).astype(np.float32) * np.float32(1e-3)
    if message.encoding == "32FC1":
        metres = _pixels(message, np.dtype(np.float32), 1).astype(np.float32)
        return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))
    raise MessageError(f"depth encoding '{message.encoding}' is not supported: publish 16UC1 (millimetres) or 32FC1 (metres)")


def _size(message: Any) -> tuple[int, int]:
    height, width = int(message.height), int(message.width)
    if height < 1 or width < 1:
        raise MessageError(f"image of {width}x{height} pixels: it is empty; check the camera driver")
    return height, width


def _pixels(message: Any, kind: np.dtype[Any], channels: int) -> NDArray[Any]:
    """The message's values in native byte order, (H, W) or (H, W, C), without the rows' padding."""
    height, width = _size(message)
    row, step = width * channels * kind.itemsize, int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    if step < row:
        raise MessageError(
            f"image says '{message.encoding}', {width} pixels wide, which takes {row} bytes a row, but its step is {step}"
            f"{_as_of(step, width)}: the encoding or the step is wrong in the camera driver"
        )
    if len(data) < step * (height - 1) + row:
        raise MessageError(
            f"image data ends after {len(data)} bytes, but {width}x{height} '{message.encoding}' with step {step} takes {step * height}: "
            "the message was cut short or its size is wrong"
        )
    _refuse_other_channels(message, data, row, step)
    rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
    values = np.ascontiguousarray(rows).view(kind.newbyteorder(">" if message.is_bigendian else "<"))
    shape = (height, width) if channels == 1 else (height, width, channels)
    return values.reshape(shape).astype(kind.newbyteorder("="), copy=False)


def _refuse_other_channels(message: Any, data: NDArray[np.uint8], row: int, step: int) -> None:
    """Four channels under the name of three, and the like, would pass as padded rows and give a sheared picture."""
    height, width = _size(message)
    if step > row:
        padding = np.lib.stride_tricks.as_strided(data[row:], (height - 1, step - row), (step, 1), writeable=False)
        suspect = bool(_as_of(step, width)) and height > 1 and bool((padding != padding[0, 0]).any())  # true padding is of one value
        taken = step
    else:
        suspect, taken = len(data) > step * height and len(data) % (width * height) == 0, len(data) // height
    if suspect and _as_of(taken, width):
        raise MessageError(
            f"image says '{message.encoding}', but a row of {width} pixels has {taken} bytes{_as_of(taken, width)}: "
            "set the right encoding in the camera driver"
        )


def _as_of(row: int, width: int) -> str:
    """Which encodings have rows of so many bytes, as a remark; empty if none has."""
    names = _OF_BYTES.get(row // width) if row % width == 0 else None
    return f", as of {names}" if names else ""


def _planar(message: Any) -> NDArray[np.uint8]:
    """NV12 and NV21: a full plane of brightness, then half a plane of colour. `step` is that of a row of brightness."""
    height, width = _size(message)
    step, data = int(message.step) or width, np.frombuffer(message.data, np.uint8)
    if height % 2 or width % 2:
        raise MessageError(f"'{message.encoding}' image of {width}x{height} pixels: both sides must be even")
    rows = height * 3 // 2
    if step < width or len(data) < step * (rows - 1) + width:
        raise MessageError(f"image data of {len(data)} bytes is too short for {width}x{height} '{message.encoding}' with step {step}")
    planes = np.lib.stride_tricks.as_strided(data, (rows, width), (step, 1), writeable=False)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(planes), _PLANAR[message.encoding]), np.uint8)


def _decompressed(message: Any) -> NDArray[np.uint8]:
    data = np.frombuffer(message.data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise MessageError(f"compressed image of format '{message.format}' and {len(data)} bytes cannot be read: publish jpeg or png")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def camera_from_info(message: Any, rectified: bool = False) -> Camera | None:
    """sensor_msgs/CameraInfo to the Camera of the image as published (binning and region of interest applied).

    K and D are the raw image's; the camera of the `rectified` one is P (K where P is not given), without distortion.
    None if K is all zeros, which by definition says "uncalibrated". Raises MessageError for values that make no camera.
    """
    matrix, name, coefficients = _values(message, "k").reshape(3, 3), message.distortion_model, _values(message, "d")
    if not matrix.any():
        return None
    if rectified:
        projection, name, coefficients = _values(message, "p").reshape(3, 4), "", np.zeros(0)
        matrix = projection if projection.any() else matrix
    width, height = int(message.width), int(message.height)
    values = {"fx": matrix[0, 0], "fy": matrix[1, 1], "cx": matrix[0, 2], "cy": matrix[1, 2]}
    for key, value in values.items():
        if not math.isfinite(value):
            raise MessageError(f"CameraInfo has {key} = {value}: calibrate the camera, or publish zeros to say it is not")
    if not np.isfinite(coefficients).all():
        raise MessageError(f"CameraInfo has distortion {coefficients.tolist()}: calibrate the camera again")
    model, distortion = _distortion(name, coefficients)
    fx, fy, cx, cy = (float(value) for value in values.values())
    try:
        camera = Camera(width, height, fx, fy, cx, cy, model, distortion)
        return _as_published(camera, message)
    except GeometryError as error:
        raise MessageError(f"CameraInfo is no camera: {error}") from error


def _values(message: Any, name: str) -> NDArray[np.float64]:
    """Of a CameraInfo; ROS 1 has capital letters."""
    return np.asarray(getattr(message, name if hasattr(message, name) else name.upper()), np.float64).ravel()


def _distortion(name: str, coefficients: NDArray[np.float64]) -> tuple[DistortionModel, tuple[float, ...]]:
    model, count = _MODELS.get(name, ("pinhole", 0))
    if not coefficients.any() and model != "equidistant":  # which r = f theta is not a pinhole's
        return "pinhole", ()
    if model == "pinhole":
        raise MessageError(f"CameraInfo has the distortion model '{name}': supported are {', '.join(_MODELS)}")
    if model == "plumb_bob" and len(coefficients) == 8:  # as OpenCV's calibration gives them by its rational model
        model, count = _MODELS["rational_polynomial"]
    if coefficients[count:].any():
        more = "thin prism and tilt are not supported" if model == "rational_polynomial" else "the others would be left out"
        raise MessageError(
            f"CameraInfo has {len(coefficients)} coefficients of '{name}', {count} are known: {more}; calibrate the camera with {count}"
        )
    padded = np.zeros(count)
    padded[: len(coefficients)] = coefficients[:count]
    return model, tuple(float(value) for value in padded)


def _as_published(camera: Camera, message: Any) -> Camera:
    """Region of interest first, then binning, as sensor_msgs/CameraInfo says. A region of zeros is the whole image."""
    roi = message.roi
    if roi.width and roi.height and (roi.width, roi.height) != (camera.width, camera.height):
        camera = camera.cropped(int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height))
    across, down = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    if (across, down) != (1, 1):
        camera = camera.resized(camera.width // across, camera.height // down)
    return camera


def is_image_type(name: str) -> bool:
    """Is this the name of a message type that `decode_image` takes?"""
    return re.fullmatch(r"sensor_msgs/(msg/)?(Compressed)?Image", name) is not None


def is_rectified(topic: str) -> bool:
    """Does an image topic's name say that its images are rectified, as image_proc's image_rect and image_rect_color do?"""
    name = topic.rstrip("/").removesuffix("/compressed").rpartition("/")[2]
    return not {"rect", "rectified"}.isdisjoint(name.split("_"))


def matrix_from_transform(transform: Any) -> NDArray[np.float64]:
    """geometry_msgs Transform -> 4x4; GeometryError for a quaternion of zeros."""
    t, q = transform.translation, transform.rotation
    return pose_matrix(matrix_from_quaternion([q.x, q.y, q.z, q.w]), [t.x, t.y, t.z])


def matrix_from_pose(pose: Any) -> NDArray[np.float64]:
    """geometry_msgs Pose -> 4x4."""
    t, q = pose.position, pose.orientation
    return pose_matrix(matrix_from_quaternion([q.x, q.y, q.z, q.w]), [t.x, t.y, t.z])
