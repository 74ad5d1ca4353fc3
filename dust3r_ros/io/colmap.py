"""COLMAP's text model: cameras.txt, images.txt, points3D.txt (colmap.github.io/format.html), for tools that start from known poses.

Poses there are world to camera, as a quaternion (w first) and a translation; pixel centres lie at halves. Pictures are named by their
stamps, STAMP.png, and have the size of the camera that took them. Points come without tracks: they are dense, not features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dust3r_ros.geometry import Camera, inverse_pose, quaternion_from_matrix
from dust3r_ros.io.atomic import OutputError, atomic_folder
from dust3r_ros.mapping.types import Keyframe, PointCloud

FILES = {"cameras.txt", "images.txt", "points3D.txt"}


def write_colmap(folder: Path, keyframes: Sequence[Keyframe], cloud: PointCloud) -> None:
    """Replaces the folder as a whole. Raises OutputError, also for a folder that holds anything but such a model."""
    folder = folder.expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or not {path.name for path in folder.iterdir()} <= FILES):
        raise OutputError(f"{folder} holds something else, which would be replaced: give a folder that is new, empty, or such a model")
    cameras: dict[tuple[str, int, int, tuple[float, ...]], int] = {}
    of_keyframe = [cameras.setdefault(colmap_camera(keyframe.source), len(cameras) + 1) for keyframe in keyframes]
    with atomic_folder(folder) as temporary:
        lines = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
        lines += [
            f"{number} {model} {width} {height} {' '.join(map(repr, values))}" for (model, width, height, values), number in cameras.items()
        ]
        (temporary / "cameras.txt").write_text("\n".join(lines) + "\n")
        (temporary / "images.txt").write_text("\n".join(_images(keyframes, of_keyframe)) + "\n")
        with (temporary / "points3D.txt").open("w") as file:
            file.write("# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[]\n")
            for number, (point, color) in enumerate(zip(cloud.points.tolist(), cloud.colors.tolist(), strict=True), start=1):
                file.write("{} {:.7g} {:.7g} {:.7g} {} {} {} 0\n".format(number, *point, *color))


def colmap_camera(camera: Camera) -> tuple[str, int, int, tuple[float, ...]]:
    """Model, width, height and parameters."""
    pinhole = (camera.fx, camera.fy, camera.cx + 0.5, camera.cy + 0.5)
    if camera.model == "equidistant":
        return "OPENCV_FISHEYE", camera.width, camera.height, (*pinhole, *camera.distortion)
    if camera.is_pinhole:
        return "PINHOLE", camera.width, camera.height, pinhole
    lens = (*camera.distortion, *[0.0] * (8 - len(camera.distortion)))
    if not any(lens[4:]):
        return "OPENCV", camera.width, camera.height, (*pinhole, *lens[:4])
    return "FULL_OPENCV", camera.width, camera.height, (*pinhole, *lens)


def _images(keyframes: Sequence[Keyframe], cameras: Sequence[int]) -> Iterator[str]:
    yield "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"
    yield "# POINTS2D[] as (X, Y, POINT3D_ID): none"
    for number, (keyframe, camera) in enumerate(zip(keyframes, cameras, strict=True), start=1):
        to_camera = inverse_pose(keyframe.pose)
        x, y, z, w = quaternion_from_matrix(to_camera[:3, :3])
        numbers = " ".join(f"{value:.12g}" for value in np.array([w, x, y, z, *to_camera[:3, 3]]))
        yield f"{number} {numbers} {camera} {keyframe.stamp // 10**9}.{keyframe.stamp % 10**9:09d}.png"
        yield ""
