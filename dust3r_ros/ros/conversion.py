"""numpy and this package's types to ROS messages and back: the one place where it happens.

Big `data` fields are filled from one array('B'): rclpy copies that at once, while it checks a numpy array or a list byte by byte.
"""

from __future__ import annotations

import math
from array import array
from typing import Any

import cv2
import numpy as np
import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, TransformStamped, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from dust3r_ros.geometry import Camera
from dust3r_ros.geometry.rotations import quaternion_from_matrix
from dust3r_ros.io.messages import matrix_from_pose, matrix_from_transform
from dust3r_ros.kernels import pack_points
from dust3r_ros.mapping.types import PointCloud

__all__ = [
    "as_data",
    "camera_info_message",
    "cloud_from_message",
    "cloud_message",
    "depth_array",
    "depth_message",
    "from_time",
    "matrix_from_pose",
    "matrix_from_transform",
    "pose_message",
    "to_header",
    "to_time",
    "transform_message",
]

Matrix = NDArray[np.float64]

# rgb is packed 0x00RRGGBB, kept as float32 bits: what RViz and PCL read.
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")])
POINT_FIELDS = [PointField(name=name, offset=4 * k, datatype=PointField.FLOAT32, count=1) for k, name in enumerate(POINT.names or ())]


def as_data(values: NDArray[Any]) -> array[int]:
    """The array's bytes (row by row) as a message's `data` takes them at once."""
    data = array("B")
    if values.nbytes:
        data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data


def to_time(stamp: int) -> Time:
    """Nanoseconds since the epoch."""
    return Time(sec=stamp // 1_000_000_000, nanosec=stamp % 1_000_000_000)


def from_time(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def to_header(stamp: int, frame_id: str) -> Header:
    return Header(stamp=to_time(stamp), frame_id=frame_id)


# ---- pictures ------------------------------------------------------------------------------------------------------------------------


def depth_message(values: NDArray[np.float32], header: Header, unknown: float | None = None) -> Image:
    """[H, W] float32 -> 32FC1. Values equal to `unknown` become NaN, which says "not measured" (REP 118)."""
    values = np.asarray(values, "<f4")
    if unknown is not None:
        values = np.where(values == np.float32(unknown), np.float32(np.nan), values)
    height, width = values.shape
    return Image(header=header, height=height, width=width, encoding="32FC1", is_bigendian=0, step=4 * width, data=as_data(values))


def depth_array(message: Image) -> NDArray[np.float32]:
    """32FC1 -> [H, W] float32, NaN kept."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[:, : 4 * message.width]
    order = ">f4" if message.is_bigendian else "<f4"
    return np.ascontiguousarray(rows).view(order).astype(np.float32)


def camera_info_message(camera: Camera, header: Header) -> CameraInfo:
    """The camera's own calibration; a camera without distortion is a plumb_bob one with zeros."""
    plain = camera.model == "pinhole"
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob" if plain else camera.model,
        d=[0.0] * 5 if plain else list(camera.distortion),
        k=camera.matrix.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=np.hstack([camera.matrix, np.zeros((3, 1))]).ravel().tolist(),
    )


# ---- point clouds --------------------------------------------------------------------------------------------------------------------


def cloud_message(cloud: PointCloud, header: Header, to_frame: Matrix | None = None) -> PointCloud2:
    """Points moved by the 4x4 `to_frame` into the header's frame; fields x y z rgb confidence."""
    points = cloud.points
    if to_frame is not None and len(points):
        points = cv2.transform(points[:, None], to_frame[:3].astype(np.float64))[:, 0]
    tensors = [torch.from_numpy(np.require(values, requirements=["C", "W"])) for values in (points, cloud.colors, cloud.confidence)]
    records = pack_points(*tensors).numpy()
    return PointCloud2(
        header=header,
        height=1,
        width=len(cloud),
        fields=POINT_FIELDS,
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * len(cloud),
        data=as_data(records),
        is_dense=bool(np.isfinite(points).all()),
    )


def cloud_from_message(message: PointCloud2) -> PointCloud:
    """A cloud as `cloud_message` makes it."""
    records = np.frombuffer(message.data, POINT, count=message.width * message.height)
    points = np.stack([records["x"], records["y"], records["z"]], axis=1)
    packed = records["rgb"]
    colors = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8)
    return PointCloud(points, colors, records["confidence"].copy())


# ---- poses ---------------------------------------------------------------------------------------------------------------------------


def transform_message(child_to_parent: Matrix, header: Header, child: str) -> TransformStamped:
    """The pose (4x4) of frame `child` in the header's frame."""
    x, y, z = child_to_parent[:3, 3].tolist()
    rotation = _quaternion(child_to_parent)
    return TransformStamped(header=header, child_frame_id=child, transform=Transform(translation=Vector3(x=x, y=y, z=z), rotation=rotation))


def pose_message(pose: Matrix) -> Pose:
    x, y, z = pose[:3, 3].tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=_quaternion(pose))


def _quaternion(pose: Matrix) -> Quaternion:
    x, y, z, w = quaternion_from_matrix(pose[:3, :3]).tolist()
    assert math.isfinite(w)
    return Quaternion(x=x, y=y, z=z, w=w)
